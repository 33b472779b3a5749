// What the page knows: lessons, narration, and the model that the figures are computed from.
import { batch, computed, effect, signal } from "@preact/signals";
import { desk, failed, ready, waiting, words, type LessonLine, type Loadable, type Subject } from "./desk";
import { Follow } from "./follow";
import { Narrator, type ClockName, type Lesson, type State } from "./narrator";
import { keep, kept } from "./progress";

export const lessons = signal<Loadable<LessonLine[]>>(waiting("Fetching the lessons …"));
export const lesson = signal<Loadable<Lesson>>(waiting("Opening the lesson …"));
export const subject = signal<Loadable<Subject>>(waiting("Asking for the model …"));
export const state = signal<State | null>(null);
export const finished = signal<number[]>([]);
export const following = signal(true);
export const captions = signal(true);
export const gone = signal("");
/** Why the last change of voice did not last, until the reader puts it away. */
export const notice = signal("");
/** Raised whenever the page should show where the narration stands. */
export const look = signal(0);

export const follow = new Follow((now) => {
  following.value = now;
});

let narrator: Narrator | null = null;
export const narration = (): Narrator | null => narrator;
export const text = computed(() => (lesson.value.state === "ready" ? lesson.value.value : null));

/** Ask for everything the page begins with. */
export function begin(): void {
  desk().onGone = (message) => {
    gone.value = message;
  };
  void desk()
    .ask<{ lessons: LessonLine[] }>("lessons")
    .then(async ({ lessons: found }) => {
      lessons.value = ready(found);
      const wanted = decodeURIComponent(location.hash.slice(1));
      const first = found.find(({ id }) => id === wanted) ?? found[0];
      if (first) await openLesson(first.id);
      else lesson.value = failed("There is no lesson in this installation.");
    })
    .catch((error: unknown) => {
      lessons.value = failed(error);
      lesson.value = failed(error);
    });
  askSubject();
}

export function askSubject(): void {
  subject.value = waiting("Loading the model …");
  const partial = ({ epoch, epochs }: { epoch?: number; epochs?: number }): void => {
    if (epoch !== undefined) {
      subject.value = waiting(
        `Training a two-dimensional companion on the same data: epoch ${epoch} of ${epochs ?? "?"} …`,
      );
    }
  };
  desk()
    .run<Subject>("subject", {}, partial)
    .result.then((found) => {
      subject.value = ready(found);
    })
    .catch((error: unknown) => {
      subject.value = failed(error);
    });
}

export async function openLesson(id: string): Promise<void> {
  const before = narrator;
  narrator = null; // what it still says is not heard
  before?.close();
  state.value = null;
  lesson.value = waiting("Opening the lesson …");
  try {
    const found = await desk().ask<Lesson>("lesson", { id });
    const known = kept(id, found.paragraphs.length);
    batch(() => {
      finished.value = known.finished;
      lesson.value = ready(found);
      const mine: Narrator = new Narrator(found, { onChange: (next) => mine === narrator && changed(id, next) });
      narrator = mine;
      mine.jump(known.paragraph, known.sentence);
    });
    document.title = `${found.title} · vaelid`;
  } catch (error) {
    lesson.value = failed(words(error));
  }
}

function changed(id: string, next: State): void {
  const before = state.value;
  batch(() => {
    state.value = next;
    if (next.notice !== (before?.notice ?? "")) notice.value = next.notice;
    if (next.notice) captions.value = true;
    const all = [...new Set([...finished.value, ...next.finished])].sort((a, b) => a - b);
    if (all.length !== finished.value.length) finished.value = all;
    if (before && (before.paragraph !== next.paragraph || before.sentence !== next.sentence)) look.value += 1;
  });
  keep(id, { finished: finished.value, paragraph: next.paragraph, sentence: next.sentence });
}

/** Play or pause; play from a standstill also shows where it begins. */
export function toggle(): void {
  if (state.value?.status === "idle") back();
  narrator?.toggle();
}

/** To a sentence, and the page with it. */
export function jump(paragraph: number, sentence = 0, play = false): void {
  follow.back();
  narrator?.jump(paragraph, sentence);
  if (play) narrator?.play();
  look.value += 1;
}

export const step = (by: number): void => {
  const at = state.value;
  if (at) jump(at.paragraph + by);
};

export function stepSentence(by: number): void {
  follow.back();
  if (by > 0) narrator?.next();
  else narrator?.previous();
  look.value += 1;
}

/** Return to the narration. */
export function back(): void {
  follow.back();
  look.value += 1;
}

export function setClock(name: ClockName): void {
  notice.value = "";
  if (name === "silent") captions.value = true;
  narrator?.setClock(name);
}

export const SPEEDS = [0.75, 1, 1.25, 1.5, 2];

export function faster(by: number): void {
  const at = SPEEDS.findIndex((each) => each >= (state.value?.speed ?? 1) - 1e-9);
  const next = SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, (at < 0 ? SPEEDS.length - 1 : at) + by))];
  narrator?.setSpeed(next ?? 1);
}

/** Forget how far this lesson has been heard. */
export function startOver(): void {
  const id = text.value?.id;
  const clock = state.value?.clock;
  if (!id || clock === undefined) return;
  keep(id, { finished: [], paragraph: 0, sentence: 0 });
  void openLesson(id);
}

export const progress = computed(() => `${finished.value.length} / ${text.value?.paragraphs.length ?? 0}`);

// A lesson that is shown says so in the address.
effect(() => {
  const id = text.value?.id;
  if (id && location.hash.slice(1) !== id) history.replaceState(null, "", `#${id}`);
});
