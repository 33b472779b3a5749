// Something asked of the desk, as the page shows it: running, done, failed or cancelled, with what came so far.
import { signal } from "@preact/signals";
import { Refused, type Job } from "../core/wire";

export type State = "idle" | "running" | "done" | "failed" | "cancelled";

export class Work<T> {
  readonly state = signal<State>("idle");
  readonly value = signal<T | null>(null);
  /** The desk's sentence when it failed. */
  readonly said = signal("");
  private job: Job<unknown> | null = null;
  private turn = 0;

  /** Take up a job; an earlier one is given up, and what it still says is not heard. */
  start<A>(job: Job<A>, keep: (answer: A) => T, old = false): Promise<T | null> {
    if (this.state.value === "running") this.job?.cancel();
    const turn = ++this.turn;
    this.job = job;
    this.state.value = "running";
    this.said.value = "";
    if (!old) this.value.value = null;
    return job.result.then(
      (answer) => {
        if (turn !== this.turn) return null;
        const value = keep(answer);
        this.value.value = value;
        this.state.value = "done";
        return value;
      },
      (error: Error) => {
        if (turn !== this.turn) return null;
        const cancelled = error instanceof Refused && error.cancelled;
        this.state.value = cancelled ? "cancelled" : "failed";
        this.said.value = cancelled ? "Cancelled." : error.message;
        return null;
      },
    );
  }

  cancel(): void {
    if (this.state.value === "running") this.job?.cancel();
  }

  /** Forget it all. */
  clear(): void {
    this.cancel();
    this.turn++;
    this.state.value = "idle";
    this.value.value = null;
    this.said.value = "";
  }
}

/** A single answer as a job that cannot be cancelled. */
export const once = <T>(result: Promise<T>): Job<T> => ({ result, cancel: () => undefined });
