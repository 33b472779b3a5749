// What the lesson page asks the server, and how its answers read.
import { connect, Refused, type Answer, type Connection, type Tensor } from "../core/wire";

export interface LessonLine {
  id: string;
  title: string;
  summary: string;
  paragraphs: number;
  minutes: number;
}

/** The two-dimensional model that the figures are computed from. */
export interface Subject {
  model: string;
  companion: boolean;
  said: string;
  latent: number;
  kind: "image" | "table";
  shape: number[] | null;
  rows: [number, string | number | null][];
  run: string | null;
  features: string[] | null;
  /** Column of the labels, by which points are coloured. */
  label: string | null;
}

/** A normal distribution in the plane: standard deviations along axes turned by an angle in radians. */
export interface Gaussian {
  mean: [number, number];
  sd: [number, number];
  angle: number;
}

/** Something that is asked for: not yet, on its way, here, or refused in words. */
export type Loadable<T> =
  { state: "waiting"; said: string } | { state: "ready"; value: T } | { state: "failed"; said: string };

export const waiting = (said: string): { state: "waiting"; said: string } => ({ state: "waiting", said });
export const ready = <T>(value: T): { state: "ready"; value: T } => ({ state: "ready", value });
export const failed = (error: unknown): { state: "failed"; said: string } => ({ state: "failed", said: words(error) });
export const words = (error: unknown): string => (error instanceof Error ? error.message : String(error));
export const wasCancelled = (error: unknown): boolean => error instanceof Refused && error.cancelled;

let connection: Connection | null = null;

/** The connection of this tab, opened when it is first needed. */
export const desk = (): Connection => (connection ??= connect("lesson"));

/** One question at a time; of those that come meanwhile only the last is asked. */
export class Latest<T = Answer, A extends object = object> {
  private busy = false;
  private next: A | null = null;

  constructor(
    private readonly op: string,
    private readonly answered: (answer: T, args: A) => void,
    private readonly refused: (message: string) => void,
  ) {}

  ask(args: A): void {
    this.next = args;
    if (!this.busy) void this.go();
  }

  /** Forget a question that has not been asked yet. */
  forget(): void {
    this.next = null;
  }

  private async go(): Promise<void> {
    this.busy = true;
    while (this.next) {
      const args = this.next;
      this.next = null;
      try {
        const answer = await desk().ask<T>(this.op, args);
        if (!this.next) this.answered(answer, args);
      } catch (error) {
        if (!this.next) this.refused(words(error));
      }
    }
    this.busy = false;
  }
}

interface Wanted {
  at: [number, number];
  decoded: (far: number, cells: ArrayBuffer) => void;
  refused: (message: string) => void;
}

const wanted = new Map<string, Wanted>();
let flying = false;

/** What lies at a point of the plane, by the fast path. Each figure's latest question is asked, one at a time. */
export function dragTo(
  figure: string,
  at: [number, number],
  decoded: Wanted["decoded"],
  refused: Wanted["refused"],
): void {
  wanted.set(figure, { at, decoded, refused });
  if (!flying) nextDrag();
}

function nextDrag(): void {
  const first = wanted.entries().next();
  if (first.done) return;
  const [figure, { at, decoded, refused }] = first.value;
  wanted.delete(figure);
  flying = true;
  const heard = (tell: () => void): void => {
    flying = false;
    tell();
    nextDrag();
  };
  desk().onDrag = (far, cells) => heard(() => decoded(far, cells));
  desk().onDragError = (message) => heard(() => refused(message));
  desk().drag(...at);
}

/** Cells of one row as numbers: bytes of a picture, floats of a table. */
export function cellsOf(buffer: ArrayBuffer, subject: Subject): Tensor {
  if (subject.kind === "image" && subject.shape) return { data: new Uint8Array(buffer), shape: subject.shape };
  return { data: new Float32Array(buffer), shape: [buffer.byteLength / 4] };
}
