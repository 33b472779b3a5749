// Which colour and which mark every point has, and the legend that says so.
import { CLASSES, colour, type Ramp } from "../core/pictures";
import type { Colouring } from "./types";

export const MARKS = ["disc", "square", "diamond", "ring"] as const;
export type Mark = (typeof MARKS)[number];
const STEPS = 64;
const RAMP: Ramp = "viridis";

export interface Style {
  rgb: [number, number, number];
  mark: Mark;
}

/** Every point's style, as a number into `styles`. */
export interface Paint {
  codes: Uint8Array;
  styles: Style[];
  /** 1 where a style is switched off in the legend. */
  off: Uint8Array;
}

export const rgb = (hex: string): [number, number, number] => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)) as [number, number, number];

const GREY: [number, number, number] = [128, 134, 142];
/** A point whose number is missing. */
export const MISSING: Style = { rgb: GREY, mark: "ring" };

/** The style of a category; past the twelfth the colours come again with another mark, the last "other" is grey. */
export function category(code: number, names: string[]): Style {
  if (code < 0 || (code === names.length - 1 && names.length > 40)) return { rgb: GREY, mark: "disc" };
  return { rgb: rgb(CLASSES[code % CLASSES.length] ?? "#808080"), mark: MARKS[Math.floor(code / CLASSES.length) % MARKS.length] ?? "disc" };
}

export function paintOf(colouring: Colouring | null, n: number, hidden: ReadonlySet<number>, plain: [number, number, number]): Paint {
  if (!colouring) return { codes: new Uint8Array(n), styles: [{ rgb: plain, mark: "disc" }], off: new Uint8Array(1) };
  if (colouring.kind === "category") {
    const styles = [...colouring.names.map((_, code) => category(code, colouring.names)), category(-1, [])];
    const codes = Uint8Array.from(colouring.codes.data, (code) => (code < 0 ? styles.length - 1 : code));
    return { codes, styles, off: Uint8Array.from(styles, (_, code) => (hidden.has(code) ? 1 : 0)) };
  }
  const { low, high } = colouring;
  const styles: Style[] = Array.from({ length: STEPS }, (_, k) => ({ rgb: colour(k / (STEPS - 1), RAMP), mark: "disc" }));
  styles.push(MISSING);
  const codes = Uint8Array.from(colouring.values.data, (value) =>
    Number.isFinite(value) ? Math.round(Math.min(Math.max((value - low) / (high - low || 1), 0), 1) * (STEPS - 1)) : STEPS,
  );
  return { codes, styles, off: new Uint8Array(styles.length) };
}

/** A mark's outline around a place. */
export function trace(context: Pick<CanvasPath, "rect" | "arc" | "moveTo" | "lineTo" | "closePath">, mark: Mark, x: number, y: number, radius: number): void {
  if (mark === "square") context.rect(x - radius * 0.9, y - radius * 0.9, radius * 1.8, radius * 1.8);
  else if (mark === "diamond") {
    context.moveTo(x, y - radius * 1.25);
    context.lineTo(x + radius * 1.25, y);
    context.lineTo(x, y + radius * 1.25);
    context.lineTo(x - radius * 1.25, y);
    context.closePath();
  } else context.arc(x, y, radius, 0, 2 * Math.PI);
}

/** How far inside a mark a pixel lies: 1 inside, 0 outside, between at the edge. Distances in pixels. */
export function coverage(mark: Mark, dx: number, dy: number, radius: number): number {
  const edge = (distance: number) => Math.min(Math.max(radius + 0.5 - distance, 0), 1);
  if (mark === "square") return edge(Math.max(Math.abs(dx), Math.abs(dy)) / 0.9);
  if (mark === "diamond") return edge((Math.abs(dx) + Math.abs(dy)) / 1.25);
  const disc = edge(Math.hypot(dx, dy));
  return mark === "ring" ? Math.max(disc - Math.min(Math.max(radius - 0.7 - Math.hypot(dx, dy), 0), 1), 0) : disc;
}
