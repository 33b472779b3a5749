// What the page shows, for tests: `window.__lesson` is a frozen copy, made anew whenever it is read.
import { elapsed } from "./elapsed";
import { finished, following, gone, lesson, progress, state, subject, text } from "./state";

const figures: Record<string, Record<string, unknown>> = {};

/** The numbers that a figure shows at present. */
export function report(figure: string, numbers: Record<string, unknown>): void {
  figures[figure] = numbers;
}

function frozen(value: unknown): unknown {
  if (ArrayBuffer.isView(value)) return frozen([...(value as unknown as Iterable<number>)]);
  if (Array.isArray(value)) return Object.freeze(value.map(frozen));
  if (value && typeof value === "object") {
    return Object.freeze(Object.fromEntries(Object.entries(value).map(([name, each]) => [name, frozen(each)])));
  }
  return value;
}

const error = (): string | null => {
  for (const each of [lesson.value, subject.value]) if (each.state === "failed") return each.said;
  return gone.value || null;
};

export function showSnapshot(): void {
  Object.defineProperty(window, "__lesson", {
    configurable: true,
    get: () => {
      const now = state.value;
      return frozen({
        ready: text.value !== null && subject.value.state === "ready",
        lesson: text.value?.id ?? null,
        narrator: now && {
          state: now.status,
          paragraph: now.paragraph,
          sentence: now.sentence,
          finished: finished.value,
          progress: progress.value,
          clock: now.clock,
          speed: now.speed,
          notice: now.notice,
          time: elapsed.value.at,
        },
        follow: following.value,
        figures,
        subject: subject.value.state === "ready" ? subject.value.value : null,
        error: error(),
      });
    },
  });
}
