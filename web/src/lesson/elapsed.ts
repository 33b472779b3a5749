// How far the narration is in its paragraph, in seconds of speech at speed 1.
import { effect, signal } from "@preact/signals";
import { readingTime, SILENT, type Paragraph } from "./clocks";
import { state, text } from "./state";

export const elapsed = signal({ at: 0, of: 0 });

const TICK = 200; // milliseconds
let since = 0; // milliseconds at speed 1 within the sentence, where there is no recording
let place = "";

const silent = (paragraph: Paragraph, until: number): number =>
  paragraph.sentences.slice(0, until).reduce((sum, { say }) => sum + readingTime(say) + SILENT.rest, 0) / 1000;

function measure(passed: number): void {
  const now = state.peek();
  const paragraph = now && text.peek()?.paragraphs[now.paragraph];
  if (!now || !paragraph) return;
  const here = `${now.paragraph}.${now.sentence}.${now.clock}`;
  since = here === place ? since + passed * now.speed : 0;
  place = here;
  const audio = document.querySelector<HTMLAudioElement>("audio[data-testid=narration-audio]");
  if (now.clock === "audio" && paragraph.seconds !== null) {
    const start = paragraph.sentences[now.sentence]?.start ?? 0;
    const at = now.status === "idle" || !audio || audio.seeking || audio.readyState < 1 ? start : audio.currentTime;
    elapsed.value = { at: Math.min(Math.max(at, start), paragraph.seconds), of: paragraph.seconds };
    return;
  }
  const [before, after] = [silent(paragraph, now.sentence), silent(paragraph, now.sentence + 1)];
  elapsed.value = { at: Math.min(before + since / 1000, after), of: silent(paragraph, paragraph.sentences.length) };
}

let timer = 0;
effect(() => {
  const playing = state.value?.status === "playing";
  void text.value;
  measure(0);
  window.clearInterval(timer);
  if (playing) timer = window.setInterval(() => measure(TICK), TICK);
});

export const clockTime = (seconds: number): string => {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};
