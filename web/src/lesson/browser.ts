import type { Environment, Utterance } from "./clocks";

/** The browser this page runs in. */
export function browser(): Environment {
  const synthesis = "speechSynthesis" in window ? window.speechSynthesis : null;
  return {
    now: () => performance.now(),
    after(milliseconds, action) {
      const id = window.setTimeout(action, milliseconds);
      return () => window.clearTimeout(id);
    },
    frame(action) {
      const id = window.requestAnimationFrame(action);
      return () => window.cancelAnimationFrame(id);
    },
    audio() {
      const audio = document.createElement("audio");
      audio.dataset.testid = "narration-audio";
      document.body.append(audio);
      return audio;
    },
    speech: synthesis === null ? null : {
      getVoices: () => synthesis.getVoices(),
      speak: (utterance) => synthesis.speak(utterance as unknown as SpeechSynthesisUtterance),
      cancel: () => synthesis.cancel(),
      utterance: (text) => new SpeechSynthesisUtterance(text) as unknown as Utterance,
    },
  };
}
