// A part of a plane within a canvas, with its axes.
import { heat, type Ramp } from "../../core/pictures";
import { theme, token } from "../../core/theme";
import { ticks, type Frame } from "../../core/view";
import type { Tensor } from "../../core/wire";
import type { Gaussian } from "../desk";
import type { Point } from "./drawing";

export interface Margins {
  left: number;
  right: number;
  top: number;
  bottom: number;
}
export const MARGINS: Margins = { left: 50, right: 10, top: 10, bottom: 38 };

export const frameOf = ([x0 = -1, y0 = -1, x1 = 1, y1 = 1]: number[]): Frame => ({ x0, y0, x1, y1 });

/** The larger frame of the shape of a box, around the same middle: one unit is as long along both axes. */
export function fitted(frame: Frame, width: number, height: number): Frame {
  const scale = Math.min(width / (frame.x1 - frame.x0), height / (frame.y1 - frame.y0));
  const [cx, cy] = [(frame.x0 + frame.x1) / 2, (frame.y0 + frame.y1) / 2];
  return {
    x0: cx - width / 2 / scale,
    x1: cx + width / 2 / scale,
    y0: cy - height / 2 / scale,
    y1: cy + height / 2 / scale,
  };
}

/** From numbers to pixels and back, linear along both axes. */
export class Axes {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;

  constructor(
    readonly frame: Frame,
    width: number,
    height: number,
    margins: Margins = MARGINS,
  ) {
    this.left = margins.left;
    this.top = margins.top;
    this.width = Math.max(1, width - margins.left - margins.right);
    this.height = Math.max(1, height - margins.top - margins.bottom);
  }

  /** With one unit as long along both axes. */
  static square(frame: Frame, width: number, height: number, margins: Margins = MARGINS): Axes {
    const inner = [width - margins.left - margins.right, height - margins.top - margins.bottom] as const;
    return new Axes(fitted(frame, Math.max(1, inner[0]), Math.max(1, inner[1])), width, height, margins);
  }

  x(value: number): number {
    return this.left + ((value - this.frame.x0) / (this.frame.x1 - this.frame.x0)) * this.width;
  }

  y(value: number): number {
    return this.top + ((this.frame.y1 - value) / (this.frame.y1 - this.frame.y0)) * this.height;
  }

  at([px, py]: Point): Point {
    const across = (px - this.left) / this.width;
    const up = 1 - (py - this.top) / this.height;
    return [
      this.frame.x0 + across * (this.frame.x1 - this.frame.x0),
      this.frame.y0 + up * (this.frame.y1 - this.frame.y0),
    ];
  }

  /** Pixels per unit of the first axis. */
  get scale(): number {
    return this.width / (this.frame.x1 - this.frame.x0);
  }

  holds([px, py]: Point): boolean {
    return px >= this.left && px <= this.left + this.width && py >= this.top && py <= this.top + this.height;
  }

  /** Draw only within the axes. */
  clip(context: CanvasRenderingContext2D, inside: () => void): void {
    context.save();
    context.beginPath();
    context.rect(this.left, this.top, this.width, this.height);
    context.clip();
    inside();
    context.restore();
  }

  /** Box, ticks and names. */
  draw(context: CanvasRenderingContext2D, names: [string, string], counts: [number, number] = [5, 5]): void {
    context.strokeStyle = token("line");
    context.fillStyle = token("quiet");
    context.lineWidth = 1;
    context.strokeRect(this.left + 0.5, this.top + 0.5, this.width - 1, this.height - 1);
    const { x0, x1, y0, y1 } = this.frame;
    context.textAlign = "center";
    context.textBaseline = "top";
    const under = this.top + this.height;
    for (const each of ticks(x0, x1, counts[0])) {
      const at = this.x(each);
      line(context, [at, under], [at, under + 4]);
      context.fillText(plain(each), Math.min(Math.max(at, this.left + 6), this.left + this.width - 6), under + 6);
    }
    context.fillText(names[0], this.left + this.width / 2, under + 21);
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const each of ticks(y0, y1, counts[1])) {
      const at = this.y(each);
      line(context, [this.left - 4, at], [this.left, at]);
      context.fillText(plain(each), this.left - 6, Math.min(Math.max(at, this.top + 5), under - 5));
    }
    context.save();
    context.translate(6, this.top + this.height / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(names[1], 0, 0);
    context.restore();
  }

  /** A density given by its logarithms over a frame, shaded from none to its largest value. */
  shade(context: CanvasRenderingContext2D, logs: Tensor, over: Frame): void {
    const key = theme();
    let picture = shades.get(logs)?.get(key);
    if (!picture) {
      picture = shaded(logs);
      shades.set(logs, (shades.get(logs) ?? new Map<string, HTMLCanvasElement>()).set(key, picture));
    }
    const image = picture;
    this.clip(context, () => {
      context.fillStyle = `rgb(${(theme() === "dark" ? [20, 24, 31] : [255, 255, 255]).join(" ")})`;
      context.fillRect(this.left, this.top, this.width, this.height);
      context.imageSmoothingEnabled = true;
      context.drawImage(
        image,
        this.x(over.x0),
        this.y(over.y1),
        this.x(over.x1) - this.x(over.x0),
        this.y(over.y0) - this.y(over.y1),
      );
    });
  }
}

const shades = new WeakMap<Tensor, Map<string, HTMLCanvasElement>>();

function shaded(logs: Tensor): HTMLCanvasElement {
  const most = maximum(logs);
  const density = { data: Float32Array.from(logs.data, (value) => Math.exp(value - most)), shape: logs.shape };
  const small = document.createElement("canvas");
  [small.height = 1, small.width = 1] = logs.shape;
  const ramp: Ramp = theme() === "dark" ? "night" : "blue";
  small.getContext("2d")?.putImageData(heat(density, 0, 1, ramp), 0, 0);
  return small;
}

export function maximum(values: Tensor): number {
  let most = -Infinity;
  for (const value of values.data) if (value > most) most = value;
  return most;
}

export function line(context: CanvasRenderingContext2D, from: Point, to: Point): void {
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
}

export function dot(
  context: CanvasRenderingContext2D,
  at: Point,
  radius: number,
  fill: string,
  edge = token("paper"),
): void {
  context.beginPath();
  context.arc(...at, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.fill();
  context.strokeStyle = edge;
  context.lineWidth = 1.5;
  context.stroke();
}

/** The curve of a normal some standard deviations from its mean. */
export function contour(context: CanvasRenderingContext2D, axes: Axes, q: Gaussian, deviations: number): void {
  context.beginPath();
  context.ellipse(
    axes.x(q.mean[0]),
    axes.y(q.mean[1]),
    q.sd[0] * deviations * axes.scale,
    q.sd[1] * deviations * axes.scale,
    -q.angle,
    0,
    2 * Math.PI,
  );
  context.stroke();
}

/** Words on a canvas that stay readable over any shade. */
export function label(
  context: CanvasRenderingContext2D,
  words: string,
  x: number,
  y: number,
  ink = token("ink"),
): void {
  context.lineJoin = "round";
  context.lineWidth = 3.5;
  context.strokeStyle = token("paper");
  context.strokeText(words, x, y);
  context.fillStyle = ink;
  context.fillText(words, x, y);
}

const plain = (value: number): string => String(Number(value.toPrecision(6))).replace("-", "−");
