/**
 * The narrator of a lesson: one state machine over three clocks.
 *
 *     const narrator = new Narrator(lesson, { clock: "audio", onChange: (state) => (shown.value = state) });
 *     narrator.play();                 // from where it stands; after the end, from the beginning
 *     narrator.pause();
 *     narrator.toggle();               // play or pause
 *     narrator.jump(2);                // to paragraph 2, counted from 0 …
 *     narrator.jump(2, 4);             // … or to a sentence of it
 *     narrator.next();                 // one sentence on, over the paragraph's edge as well
 *     narrator.previous();             // one sentence back
 *     narrator.setSpeed(1.25);         // 0.25 to 16
 *     narrator.setClock("speech");     // "audio" | "speech" | "silent"; goes on with the sentence it stands in
 *     narrator.state;                  // the last snapshot, frozen
 *     narrator.close();                // silence, for good
 *
 * `lesson` is what the op `lesson(id)` answers. A jump keeps the status: what played plays on at the new place, what
 * was paused stays paused there, and before the first `play()` only the place moves. To begin reading on a click:
 * `narrator.jump(p); narrator.play();`.
 *
 * `onChange(state)` is called after every change with a new snapshot {@link State}. `state.progress` reads "2 / 6":
 * paragraphs whose last sentence was heard to its end; skipping over a paragraph does not finish it. Where a clock
 * fails (no file, no voice), the silent one goes on from the same sentence and `state.notice` says why, in a sentence
 * for the reader; `state.clock` is always the clock that runs. Mark the spoken sentence where
 * `state.status !== "idle"`; the caption is `state.caption`.
 *
 * Scrolling is nobody's business here. The page follows the narration through {@link Follow} in `follow.ts`:
 *
 *     const follow = new Follow((following) => (shown.value = following));
 *     const detach = follow.attach(window);      // wheel, touch and scrolling keys turn following off
 *     follow.back();                             // "return to narration"
 *
 * For tests every outward thing comes in by `environment` (see `clocks.ts`).
 */

import { browser } from "./browser";
import { AudioClock, SilentClock, SpeechClock } from "./clocks";
import type { Clock, ClockName, Environment, Heard, Lesson } from "./clocks";

export type { ClockName, Lesson, Paragraph, Sentence } from "./clocks";

export type Status = "idle" | "playing" | "paused";

/** What the narrator is doing; a new frozen object for every change. */
export interface State {
  readonly status: Status;
  /** Where it stands, counted from 0. */
  readonly paragraph: number;
  readonly sentence: number;
  /** Paragraphs heard to their end, ascending. */
  readonly finished: readonly number[];
  /** "2 / 6" */
  readonly progress: string;
  /** The clock that runs, after a failure the silent one. */
  readonly clock: ClockName;
  readonly speed: number;
  /** Words of the sentence it stands in, as spoken. */
  readonly caption: string;
  /** Why another clock runs than the one asked for, or "". */
  readonly notice: string;
}

export interface Options {
  /** The clock to begin with; "audio" where left out. */
  clock?: ClockName;
  onChange?: (state: State) => void;
  /** Address of a paragraph's audio, counted from 0; `/assets/audio/<id>-<n>.mp3` with n from 1 where left out. */
  audioUrl?: (paragraph: number) => string;
  environment?: Environment;
}

export const SPEEDS: readonly number[] = [0.75, 1, 1.25, 1.5, 2];

const LIMITS = { slowest: 0.25, fastest: 16 };

export class Narrator {
  readonly #lesson: Lesson;
  readonly #environment: Environment;
  readonly #audioUrl: (paragraph: number) => string;
  readonly #onChange: (state: State) => void;
  #clock: Clock | null = null;
  #clockName: ClockName;
  #status: Status = "idle";
  #paragraph = 0;
  #sentence = 0;
  #finished = new Set<number>();
  #speed = 1;
  #notice = "";
  /** The clock holds the present place and can go on from a pause. */
  #held = false;
  /** The last paragraph was read to its end; play begins anew. */
  #atEnd = false;
  #closed = false;
  #state: State;

  constructor(lesson: Lesson, options: Options = {}) {
    this.#lesson = lesson;
    this.#environment = options.environment ?? browser();
    this.#audioUrl = options.audioUrl ?? ((paragraph) => `/assets/audio/${lesson.id}-${paragraph + 1}.mp3`);
    this.#onChange = options.onChange ?? (() => undefined);
    this.#clockName = options.clock ?? "audio";
    this.#choose(this.#clockName);
    this.#state = this.#snapshot();
  }

  get state(): State {
    return this.#state;
  }

  play(): void {
    if (this.#closed || this.#status === "playing" || this.#lesson.paragraphs.length === 0) return;
    if (this.#atEnd) this.#place(0, 0);
    this.#status = "playing";
    if (this.#held && this.#clock !== null) this.#clock.resume();
    else this.#start();
    this.#changed();
  }

  pause(): void {
    if (this.#status !== "playing") return;
    this.#status = "paused";
    this.#clock?.pause();
    this.#changed();
  }

  toggle(): void {
    if (this.#status === "playing") this.pause();
    else this.play();
  }

  /** Go to a sentence; places beyond the lesson's edges are its edges. */
  jump(paragraph: number, sentence = 0): void {
    const paragraphs = this.#lesson.paragraphs;
    if (this.#closed || paragraphs.length === 0) return;
    const p = within(paragraph, paragraphs.length);
    this.#place(p, within(sentence, paragraphs[p]!.sentences.length));
    if (this.#status === "playing") this.#start();
    this.#changed();
  }

  next(): void {
    const last = this.#lesson.paragraphs.length - 1;
    if (this.#sentence + 1 < this.#sentences(this.#paragraph)) this.jump(this.#paragraph, this.#sentence + 1);
    else if (this.#paragraph < last) this.jump(this.#paragraph + 1, 0);
  }

  previous(): void {
    if (this.#sentence > 0) this.jump(this.#paragraph, this.#sentence - 1);
    else if (this.#paragraph > 0) this.jump(this.#paragraph - 1, this.#sentences(this.#paragraph - 1) - 1);
  }

  /** 1 is the speed of the recording; held between 0.25 and 16. */
  setSpeed(rate: number): void {
    if (!Number.isFinite(rate)) return;
    this.#speed = Math.min(LIMITS.fastest, Math.max(LIMITS.slowest, rate));
    this.#clock?.setSpeed(this.#speed);
    this.#changed();
  }

  /** Read by another clock, from the beginning of the sentence it stands in. */
  setClock(name: ClockName): void {
    if (this.#closed) return;
    this.#discard();
    this.#notice = "";
    this.#choose(name);
    if (this.#status === "playing") this.#start();
    this.#changed();
  }

  close(): void {
    this.#discard();
    this.#status = "idle";
    this.#closed = true;
    this.#changed();
  }

  #sentences(paragraph: number): number {
    return this.#lesson.paragraphs[paragraph]?.sentences.length ?? 0;
  }

  #place(paragraph: number, sentence: number): void {
    this.#paragraph = paragraph;
    this.#sentence = sentence;
    this.#atEnd = false;
    this.#held = false;
  }

  #choose(name: ClockName): void {
    if (name === "audio" && !this.#lesson.audio) {
      this.#clockName = "silent";
      this.#notice = "This lesson comes without recorded audio; captions run in silence.";
    } else {
      this.#clockName = name;
    }
  }

  #start(): void {
    this.#clock ??= this.#make(this.#clockName);
    this.#held = true;
    this.#clock.start(this.#paragraph, this.#sentence, this.#speed);
  }

  #discard(): void {
    this.#clock?.close();
    this.#clock = null;
    this.#held = false;
  }

  #make(name: ClockName): Clock {
    const heard: Heard = {
      sentence: (sentence) => this.#reached(sentence),
      finished: () => this.#paragraphEnded(),
      failed: (why) => this.#failed(why),
    };
    const paragraphs = this.#lesson.paragraphs;
    if (name === "audio") return new AudioClock(paragraphs, this.#audioUrl, this.#environment, heard);
    if (name === "speech") return new SpeechClock(paragraphs, this.#environment, heard);
    return new SilentClock(paragraphs, this.#environment, heard);
  }

  #reached(sentence: number): void {
    if (sentence === this.#sentence) return;
    this.#sentence = sentence;
    this.#changed();
  }

  #paragraphEnded(): void {
    this.#finished.add(this.#paragraph);
    if (this.#paragraph + 1 < this.#lesson.paragraphs.length) {
      this.#place(this.#paragraph + 1, 0);
      this.#start();
    } else {
      this.#status = "idle";
      this.#atEnd = true;
    }
    this.#changed();
  }

  #failed(why: string): void {
    this.#discard();
    this.#clockName = "silent";
    this.#notice = `${why} Captions go on in silence.`;
    this.#start();
    this.#changed();
  }

  #snapshot(): State {
    const finished = [...this.#finished].sort((a, b) => a - b);
    return Object.freeze({
      status: this.#status,
      paragraph: this.#paragraph,
      sentence: this.#sentence,
      finished: Object.freeze(finished),
      progress: `${finished.length} / ${this.#lesson.paragraphs.length}`,
      clock: this.#clockName,
      speed: this.#speed,
      caption: this.#lesson.paragraphs[this.#paragraph]?.sentences[this.#sentence]?.say ?? "",
      notice: this.#notice,
    });
  }

  #changed(): void {
    this.#state = this.#snapshot();
    this.#onChange(this.#state);
  }
}

function within(index: number, length: number): number {
  return Math.max(0, Math.min(length - 1, Math.trunc(index) || 0));
}
