/**
 * The three clocks a narrator reads by: recorded audio, the browser's own voice, and silence.
 *
 * A clock reads one paragraph at a time and reports sentences as they begin, the paragraph's end, or that it cannot go
 * on. It knows nothing of what comes after; that is the narrator's business. Everything of the browser's that a clock
 * touches comes in by an {@link Environment}, so that tests can put a fake one in its place.
 */

export interface Sentence {
  /** To be shown; TeX inline between $…$, or a displayed formula where `tex` is true. */
  readonly text: string;
  /** To be spoken: words only. */
  readonly say: string;
  readonly tex: boolean;
  /** Seconds within the paragraph's audio; null where there is none. */
  readonly start: number | null;
  readonly end: number | null;
}

export interface Paragraph {
  readonly title: string;
  readonly figure: string;
  readonly seconds: number | null;
  readonly sentences: readonly Sentence[];
}

export interface Lesson {
  readonly id: string;
  readonly title: string;
  /** All recordings are there. */
  readonly audio: boolean;
  readonly paragraphs: readonly Paragraph[];
}

export type ClockName = "audio" | "speech" | "silent";

/** What a clock reports, while it reads: nothing after `pause` or `stop`, nor of a start that a later one replaced. */
export interface Heard {
  sentence(index: number): void;
  finished(): void;
  /** `why` is a sentence for the reader. */
  failed(why: string): void;
}

export interface Clock {
  /** Read `paragraph` from `sentence` on; whatever was being read ends. */
  start(paragraph: number, sentence: number, speed: number): void;
  pause(): void;
  /** Go on where `pause` came; the browser's voice goes on from the beginning of that sentence. */
  resume(): void;
  stop(): void;
  setSpeed(speed: number): void;
  /** Stop, and let go of everything. */
  close(): void;
}

/** The part of an HTMLAudioElement that is used. */
export interface Audio {
  src: string;
  currentTime: number;
  playbackRate: number;
  defaultPlaybackRate: number;
  preload: string;
  readonly readyState: number;
  play(): Promise<void>;
  pause(): void;
  remove(): void;
  addEventListener(type: "loadedmetadata" | "timeupdate" | "ended" | "error", listener: () => void): void;
}

/** The part of a SpeechSynthesisUtterance that is used. */
export interface Utterance {
  text: string;
  lang: string;
  rate: number;
  voice: Voice | null;
  onstart: ((event: never) => void) | null;
  onend: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
}

export interface Voice {
  readonly lang: string;
  readonly localService: boolean;
  readonly default: boolean;
}

/** The part of `speechSynthesis` that is used. */
export interface Speech {
  getVoices(): Voice[];
  speak(utterance: Utterance): void;
  cancel(): void;
  utterance(text: string): Utterance;
}

/** The browser, as far as a clock needs it. */
export interface Environment {
  /** Milliseconds. */
  now(): number;
  /** Run `action` after so many milliseconds; what is returned calls it off. */
  after(milliseconds: number, action: () => void): () => void;
  /** Run `action` before the next picture; what is returned calls it off. */
  frame(action: () => void): () => void;
  audio(): Audio;
  /** null where the browser has no speech at all. */
  readonly speech: Speech | null;
}

/** Words a minute of silent reading at speed 1, and the rest after each sentence in milliseconds. */
export const SILENT = { wordsPerMinute: 170, rest: 350 };

/** When a voice or a recording that says nothing is given up, in milliseconds. */
export const PATIENCE = { voices: 2000, utterance: 3000, stretch: 2, hangs: 2, audio: 8000, look: 1000 };

/** The rest before each utterance in milliseconds; some browsers lose one that follows hard upon a cancel. */
export const BREATH = 250;

/** How long a sentence takes at speed 1, in milliseconds. */
export function readingTime(say: string): number {
  const words = say.split(/\s+/).filter((word) => word !== "").length;
  return (Math.max(1, words) * 60_000) / SILENT.wordsPerMinute;
}

/** Recorded audio: one element for the whole lesson, whose position tells the sentence. */
export class AudioClock implements Clock {
  readonly #paragraphs: readonly Paragraph[];
  readonly #url: (paragraph: number) => string;
  readonly #environment: Environment;
  readonly #heard: Heard;
  readonly #audio: Audio;
  #paragraph = -1;
  #sentence = -1;
  /** Where to begin as soon as the recording's length is known; null once it has been done. */
  #seek: number | null = null;
  #playing = false;
  #cancelFrame: () => void = () => undefined;
  #cancelLook: () => void = () => undefined;

  constructor(paragraphs: readonly Paragraph[], url: (paragraph: number) => string, env: Environment, heard: Heard) {
    this.#paragraphs = paragraphs;
    this.#url = url;
    this.#environment = env;
    this.#heard = heard;
    this.#audio = env.audio();
    this.#audio.preload = "auto";
    this.#audio.addEventListener("loadedmetadata", () => this.#seekNow());
    this.#audio.addEventListener("timeupdate", () => this.#look());
    this.#audio.addEventListener("ended", () => this.#ended());
    this.#audio.addEventListener("error", () => this.#fail("The recording could not be loaded."));
  }

  start(paragraph: number, sentence: number, speed: number): void {
    this.stop();
    const audio = this.#audio;
    this.#seek = this.#paragraphs[paragraph]?.sentences[sentence]?.start ?? 0;
    this.#sentence = sentence;
    this.setSpeed(speed);
    if (paragraph !== this.#paragraph) {
      this.#paragraph = paragraph;
      audio.src = this.#url(paragraph); // its readyState is 0 from here on
    }
    if (audio.readyState >= 1) this.#seekNow();
    this.resume();
  }

  pause(): void {
    this.#playing = false;
    this.#cancelFrame();
    this.#cancelLook();
    this.#audio.pause();
  }

  resume(): void {
    this.#playing = true;
    this.#audio.play().catch((error: unknown) => {
      // A pause or a new source ends the promise of an earlier play; that is no failure.
      if (error instanceof Error && error.name === "AbortError") return;
      const refused = error instanceof Error && error.name === "NotAllowedError";
      this.#fail(refused ? "The browser does not let this page play sound." : "The recording could not be played.");
    });
    this.#watch();
    this.#patience(this.#audio.currentTime, 0);
  }

  stop(): void {
    this.pause();
  }

  setSpeed(speed: number): void {
    this.#audio.defaultPlaybackRate = speed; // a new source begins with this one
    this.#audio.playbackRate = speed;
  }

  close(): void {
    this.stop();
    this.#audio.remove();
  }

  #seekNow(): void {
    if (this.#seek === null) return;
    this.#audio.currentTime = this.#seek;
    this.#seek = null;
  }

  /** Frames tell a sentence's beginning to 16 ms; where there are none (a hidden tab), `timeupdate` does, coarsely. */
  #watch(): void {
    this.#cancelFrame();
    this.#cancelFrame = this.#environment.frame(() => {
      this.#look();
      if (this.#playing) this.#watch();
    });
  }

  #look(): void {
    if (!this.#playing || this.#seek !== null) return;
    const time = this.#audio.currentTime + 0.01; // a seek may land a hair before its goal
    const sentences = this.#paragraphs[this.#paragraph]?.sentences ?? [];
    let at = 0;
    while (at + 1 < sentences.length && (sentences[at + 1]!.start ?? Infinity) <= time) at += 1;
    if (at === this.#sentence) return;
    this.#sentence = at;
    this.#heard.sentence(at);
  }

  /** Give up a recording that does not move at all. */
  #patience(position: number, still: number): void {
    this.#cancelLook();
    this.#cancelLook = this.#environment.after(PATIENCE.look, () => {
      const now = this.#audio.currentTime;
      const waited = now === position ? still + PATIENCE.look : 0;
      if (waited >= PATIENCE.audio) this.#fail("The recording does not play.");
      else this.#patience(now, waited);
    });
  }

  #ended(): void {
    if (!this.#playing || this.#seek !== null) return;
    const last = (this.#paragraphs[this.#paragraph]?.sentences.length ?? 1) - 1;
    if (this.#sentence !== last) {
      this.#sentence = last;
      this.#heard.sentence(last);
    }
    this.pause();
    this.#heard.finished();
  }

  #fail(why: string): void {
    if (!this.#playing) return;
    this.pause();
    this.#paragraph = -1;
    this.#heard.failed(why);
  }
}

/** What the two clocks without a recording share: they go from sentence to sentence. */
abstract class BySentence implements Clock {
  protected readonly environment: Environment;
  protected readonly heard: Heard;
  protected speed = 1;
  readonly #paragraphs: readonly Paragraph[];
  #paragraph = 0;
  #sentence = 0;

  constructor(paragraphs: readonly Paragraph[], environment: Environment, heard: Heard) {
    this.#paragraphs = paragraphs;
    this.environment = environment;
    this.heard = heard;
  }

  start(paragraph: number, sentence: number, speed: number): void {
    this.stop();
    this.#paragraph = paragraph;
    this.#sentence = sentence;
    this.speed = speed;
    this.begin(this.say);
  }

  protected get say(): string {
    return this.#paragraphs[this.#paragraph]?.sentences[this.#sentence]?.say ?? "";
  }

  protected onward(): void {
    const sentences = this.#paragraphs[this.#paragraph]?.sentences.length ?? 0;
    if (this.#sentence + 1 >= sentences) {
      this.heard.finished();
      return;
    }
    this.#sentence += 1;
    this.heard.sentence(this.#sentence);
    this.begin(this.say);
  }

  /** Read this sentence, then call `onward`. */
  protected abstract begin(say: string): void;
  abstract pause(): void;
  abstract resume(): void;
  abstract stop(): void;
  abstract setSpeed(speed: number): void;

  close(): void {
    this.stop();
  }
}

/** Silence: every sentence stays as long as it takes to read it aloud. */
export class SilentClock extends BySentence {
  /** What is left of the sentence at speed 1, in milliseconds, as of `#since`. */
  #left = 0;
  #since = 0;
  #cancel: (() => void) | null = null;

  protected begin(say: string): void {
    this.#left = readingTime(say) + SILENT.rest;
    this.resume();
  }

  pause(): void {
    if (this.#cancel === null) return;
    this.#cancel();
    this.#cancel = null;
    this.#left = Math.max(0, this.#left - (this.environment.now() - this.#since) * this.speed);
  }

  resume(): void {
    this.#since = this.environment.now();
    this.#cancel = this.environment.after(this.#left / this.speed, () => {
      this.#cancel = null;
      this.onward();
    });
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = null;
  }

  setSpeed(speed: number): void {
    const running = this.#cancel !== null;
    this.pause();
    this.speed = speed;
    if (running) this.resume();
  }
}

/**
 * The browser's own voice, one utterance per sentence.
 *
 * Voices are not to be relied on: some never report an end, some fall silent after 14 seconds, some take a pause for a
 * cancel. So there is a watchdog over each sentence, a pause cancels and reads the sentence again, and a voice that
 * does not even begin twice in a row is given up.
 */
export class SpeechClock extends BySentence {
  #voice: Voice | null = null;
  /** Kept, since some browsers forget an utterance that nobody holds, and its end with it. */
  #utterance: Utterance | null = null;
  #cancel: () => void = () => undefined;
  #hangs = 0;
  #speaking = false;

  protected begin(say: string): void {
    this.#speaking = true;
    const until = this.environment.now() + PATIENCE.voices;
    this.#cancel = this.environment.after(BREATH, () => this.#find(say, until));
  }

  pause(): void {
    this.stop();
  }

  resume(): void {
    this.begin(this.say);
  }

  stop(): void {
    this.#cancel();
    this.#cancel = () => undefined;
    this.#utterance = null;
    if (this.#speaking) this.environment.speech?.cancel();
    this.#speaking = false;
  }

  setSpeed(speed: number): void {
    const speaking = this.#speaking;
    this.speed = speed;
    if (!speaking) return;
    this.stop(); // an utterance keeps the rate it began with
    this.resume();
  }

  /** Browsers fill their list of voices some time after the page has loaded. */
  #find(say: string, until: number): void {
    const speech = this.environment.speech;
    if (speech === null) {
      this.#fail("This browser has no voice of its own.");
      return;
    }
    const voices = speech.getVoices();
    this.#voice ??= english(voices);
    if (this.#voice !== null) this.#speak(speech, this.#voice, say);
    else if (this.environment.now() < until) this.#cancel = this.environment.after(100, () => this.#find(say, until));
    else this.#fail(voices.length > 0 ? "This browser has no English voice." : "This browser has no voice of its own.");
  }

  #speak(speech: Speech, voice: Voice, say: string): void {
    const utterance = speech.utterance(say);
    const mine = (action: () => void) => (): void => {
      if (this.#utterance === utterance) action();
    };
    const over = (): void => {
      this.stop();
      this.onward();
    };
    utterance.voice = voice;
    utterance.lang = voice.lang;
    utterance.rate = Math.min(10, this.speed);
    utterance.onstart = mine(() => {
      this.#hangs = 0;
    });
    utterance.onend = mine(() => {
      this.#hangs = 0;
      over();
    });
    utterance.onerror = mine(() => this.#fail("The browser's voice failed."));
    const patience = (PATIENCE.stretch * readingTime(say)) / this.speed + PATIENCE.utterance;
    this.#cancel = this.environment.after(patience, () => {
      this.#hangs += 1;
      if (this.#hangs >= PATIENCE.hangs) this.#fail("The browser's voice says nothing.");
      else over();
    });
    this.#utterance = utterance;
    speech.speak(utterance);
  }

  #fail(why: string): void {
    this.stop();
    this.heard.failed(why);
  }
}

/** An English voice, one that runs on this machine where there is one: others send the text elsewhere. */
function english(voices: readonly Voice[]): Voice | null {
  const fit = voices.filter((voice) => /^en\b/i.test(voice.lang.replace("_", "-")));
  const local = fit.filter((voice) => voice.localService);
  const pool = local.length > 0 ? local : fit;
  return pool.find((voice) => voice.default) ?? pool[0] ?? null;
}
