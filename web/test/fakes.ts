/** A browser that the tests turn by hand: time, one audio element per call, and voices with every known defect. */

import type { Audio, Environment, Lesson, Speech, Utterance, Voice } from "../src/lesson/clocks";

export class FakeTime {
  now = 0;
  #queue: { at: number; order: number; action: () => void }[] = [];
  #order = 0;

  after(milliseconds: number, action: () => void): () => void {
    const entry = { at: this.now + Math.max(0, milliseconds), order: this.#order++, action };
    this.#queue.push(entry);
    return () => {
      this.#queue = this.#queue.filter((other) => other !== entry);
    };
  }

  /** Let time pass; `each` is called after everything that happens. */
  pass(milliseconds: number, each: () => void = () => undefined): void {
    const until = this.now + milliseconds;
    for (;;) {
      const next = this.#queue.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at || a.order - b.order)[0];
      if (next === undefined) break;
      this.#queue = this.#queue.filter((entry) => entry !== next);
      this.now = Math.max(this.now, next.at);
      next.action();
      each();
    }
    this.now = until;
  }
}

type Kind = "loadedmetadata" | "timeupdate" | "ended" | "error";

export class FakeAudio implements Audio {
  preload = "";
  defaultPlaybackRate = 1;
  readyState = 0;
  paused = true;
  removed = false;
  readonly sources: string[] = [];
  #src = "";
  #rate = 1;
  #at = 0;
  #since = 0;
  #cancel: (() => void)[] = [];
  readonly #listeners: Record<Kind, (() => void)[]> = { loadedmetadata: [], timeupdate: [], ended: [], error: [] };
  readonly #time: FakeTime;
  readonly #seconds: (src: string) => number | null;
  /** What `play()` answers with; undefined is a promise kept. */
  refusal: Error | undefined;
  /** A recording that loads and never moves. */
  stuck = false;

  /** `seconds` is a recording's length by its address; null is a recording that is not there. */
  constructor(time: FakeTime, seconds: (src: string) => number | null) {
    this.#time = time;
    this.#seconds = seconds;
  }

  get src(): string {
    return this.#src;
  }

  set src(value: string) {
    this.#halt();
    this.#src = value;
    this.sources.push(value);
    this.#at = 0;
    this.#rate = this.defaultPlaybackRate;
    this.readyState = 0;
    this.paused = true;
    this.#time.after(40, () => {
      if (this.#src !== value) return;
      if (this.#seconds(value) === null) {
        this.#fire("error");
        return;
      }
      this.readyState = 4;
      this.#fire("loadedmetadata");
      if (!this.paused) this.#run();
    });
  }

  get currentTime(): number {
    const running = this.#cancel.length > 0 && !this.stuck;
    return this.#at + (running ? ((this.#time.now - this.#since) / 1000) * this.#rate : 0);
  }

  set currentTime(value: number) {
    const running = this.#cancel.length > 0;
    this.#halt();
    this.#at = value;
    if (running) this.#run();
  }

  get playbackRate(): number {
    return this.#rate;
  }

  set playbackRate(value: number) {
    const running = this.#cancel.length > 0;
    this.#halt();
    this.#rate = value;
    if (running) this.#run();
  }

  play(): Promise<void> {
    if (this.refusal !== undefined) return Promise.reject(this.refusal);
    this.paused = false;
    if (this.readyState > 0 && this.#cancel.length === 0) this.#run();
    return Promise.resolve();
  }

  pause(): void {
    this.#halt();
    this.paused = true;
  }

  remove(): void {
    this.removed = true;
  }

  addEventListener(type: Kind, listener: () => void): void {
    this.#listeners[type].push(listener);
  }

  #fire(type: Kind): void {
    for (const listener of this.#listeners[type]) listener();
  }

  #run(): void {
    this.#since = this.#time.now;
    const left = Math.max(0, (this.#seconds(this.#src) ?? 0) - this.#at);
    const update = (): void => {
      this.#fire("timeupdate");
      this.#cancel[1] = this.#time.after(250, update);
    };
    const end = (): void => {
      this.#halt();
      this.paused = true;
      this.#fire("ended");
    };
    this.#cancel = [this.stuck ? () => undefined : this.#time.after((left * 1000) / this.#rate, end)];
    this.#cancel[1] = this.#time.after(250, update);
  }

  #halt(): void {
    this.#at = this.currentTime;
    for (const cancel of this.#cancel) cancel();
    this.#cancel = [];
  }
}

/**
 * The ways of voices: "bare" reports starts and ends only, "mute" ends only, "hangs" nothing; "dies" stops at 14 s,
 * "endless" begins and never ends; "late" is listed after 700 ms, "foreign" speaks no English.
 */
export type Manner = "normal" | "bare" | "mute" | "hangs" | "dies" | "endless" | "fails" | "none" | "late" | "foreign";

interface Boundary {
  onboundary?: (() => void) | null;
}

export class FakeSpeech implements Speech {
  readonly said: string[] = [];
  /** The most utterances that were ever under way at once. */
  most = 0;
  #current: Utterance | null = null;
  #queued: Utterance[] = [];
  #cancel: (() => void)[] = [];
  readonly #time: FakeTime;
  readonly #manner: Manner;

  constructor(time: FakeTime, manner: Manner) {
    this.#time = time;
    this.#manner = manner;
  }

  getVoices(): Voice[] {
    if (this.#manner === "none" || (this.#manner === "late" && this.#time.now < 700)) return [];
    if (this.#manner === "foreign") return [{ lang: "de-DE", localService: true, default: true }];
    return [
      { lang: "de-DE", localService: true, default: true },
      { lang: "en-GB", localService: false, default: false },
      { lang: "en_US", localService: true, default: false },
    ];
  }

  utterance(text: string): Utterance & Boundary {
    return { text, lang: "", rate: 1, voice: null, onstart: null, onend: null, onerror: null, onboundary: null };
  }

  speak(utterance: Utterance): void {
    this.#queued.push(utterance);
    this.most = Math.max(this.most, this.#queued.length + (this.#current === null ? 0 : 1));
    if (this.#current === null) this.#begin();
  }

  cancel(): void {
    for (const cancel of this.#cancel) cancel();
    const ended = this.#current;
    this.#cancel = [];
    this.#current = null;
    this.#queued = [];
    if (ended !== null) this.#time.after(1, () => (ended.onerror as (() => void) | null)?.()); // "canceled"
  }

  #begin(): void {
    const utterance = (this.#current = this.#queued.shift() ?? null);
    if (utterance === null) return;
    this.said.push(utterance.text);
    const call = (name: "onstart" | "onend" | "onerror"): void => (utterance[name] as (() => void) | null)?.();
    const later = (milliseconds: number, action: () => void): void => {
      this.#cancel.push(this.#time.after(milliseconds, action));
    };
    const length = (utterance.text.split(" ").length * 60_000) / 180 / utterance.rate;
    if (this.#manner === "hangs") return;
    if (this.#manner === "fails") {
      later(50, () => call("onerror"));
      return;
    }
    if (this.#manner !== "mute") later(50, () => call("onstart"));
    if (this.#manner === "normal") later(100, () => (utterance as Boundary).onboundary?.());
    if (this.#manner === "endless") return;
    if (this.#manner === "dies" && length > 14_000) return;
    later(length, () => {
      this.#current = null;
      this.#cancel = [];
      call("onend");
      if (this.#current === null) this.#begin();
    });
  }
}

export interface World extends Environment {
  readonly time: FakeTime;
  readonly audios: FakeAudio[];
  readonly speech: FakeSpeech | null;
}

export function world(manner: Manner | null = "normal", seconds: (src: string) => number | null = () => 12): World {
  const time = new FakeTime();
  const audios: FakeAudio[] = [];
  return {
    time,
    audios,
    now: () => time.now,
    after: (milliseconds, action) => time.after(milliseconds, action),
    frame: (action) => time.after(16, action),
    audio() {
      const audio = new FakeAudio(time, seconds);
      audios.push(audio);
      return audio;
    },
    speech: manner === null ? null : new FakeSpeech(time, manner),
  };
}

/** Six paragraphs of three sentences; the recordings last 12 s, a sentence every 4 s. */
export function lesson(audio = true): Lesson {
  const words = [
    "A belief should change when new evidence arrives",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen " +
      "eighteen nineteen twenty and some more words then",
    "Pick another example and watch the posterior move",
  ];
  const sentences = words.map((say, n) => ({
    text: say, say, tex: false, start: audio ? 4 * n + 0.2 : null, end: audio ? 4 * n + 3.6 : null,
  }));
  const paragraphs = Array.from({ length: 6 }, (_, n) => ({
    title: `Paragraph ${n}`, figure: "bar", seconds: audio ? 12 : null, sentences,
  }));
  return { id: "a-lesson", title: "A lesson", audio, paragraphs };
}
