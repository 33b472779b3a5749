// What lies under and over the points: decodings, volume, posterior, paths, ellipses, crosshair, axes.
import { colour, tile, type Ramp } from "../core/pictures";
import { ticks, type Frame, type View } from "../core/view";
import type { Tensor } from "../core/wire";
import type { Contours } from "./contours";
import { rgb } from "./paint";
import type { Ellipses, Lattice, Volume } from "./types";

/** What the layers are drawn with: a canvas, or a file of vectors. */
export type Pen = Pick<
  CanvasRenderingContext2D,
  | "fillStyle" | "strokeStyle" | "lineWidth" | "lineJoin" | "globalAlpha" | "font" | "textAlign" | "textBaseline" | "imageSmoothingEnabled"
  | "beginPath" | "moveTo" | "lineTo" | "closePath" | "arc" | "rect" | "fill" | "stroke" | "fillRect" | "setLineDash"
  | "fillText" | "measureText" | "save" | "restore" | "translate" | "rotate"
> & { drawImage(picture: HTMLCanvasElement, x: number, y: number, width: number, height: number): void };

export interface Colours {
  paper: [number, number, number];
  ink: string;
  quiet: string;
  line: string;
  accent: string;
  second: string;
  dark: boolean;
}

const GAP = 0.12; // between pictures of a lattice, of their side

/** The pictures of a lattice as one; those off the data fade. Pictures that are mostly black (or white) show as ink on paper. */
export function mosaic({ tiles, far }: Lattice, { paper, ink, dark }: Colours): HTMLCanvasElement {
  const [down = 1, across = 1, height = 1, width = 1, channels = 1] = tiles.shape;
  const canvas = document.createElement("canvas");
  const [gapX, gapY] = [Math.ceil(width * GAP), Math.ceil(height * GAP)];
  const [cellX, cellY] = [width + gapX, height + gapY];
  canvas.width = across * cellX;
  canvas.height = down * cellY;
  const pixels = new ImageData(canvas.width, canvas.height);
  const data = pixels.data;
  const flip = channels === 1 && mean(tiles.data) < 110 !== dark;
  const [ir, ig, ib] = rgb(ink);
  for (let k = 0; k < down * across; k++) {
    const { cells } = tile(tiles, k);
    const strength = 0.75 * Math.min(1, 1 / Math.max(far.data[k] ?? 1, 0.2) ** 1.5);
    const fade = Math.max(strength, 0.12);
    const top = (down - 1 - Math.floor(k / across)) * cellY + (gapY >> 1); // the first row is the lowest
    const left = (k % across) * cellX + (gapX >> 1);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const from = (y * width + x) * channels;
        const to = 4 * ((top + y) * canvas.width + left + x);
        if (channels === 1) {
          const value = (cells[from] ?? 0) / 255;
          const part = (flip || dark ? value : 1 - value) * fade * 0.8;
          data[to] = paper[0] + (ir - paper[0]) * part;
          data[to + 1] = paper[1] + (ig - paper[1]) * part;
          data[to + 2] = paper[2] + (ib - paper[2]) * part;
        } else for (let c = 0; c < 3; c++) data[to + c] = paper[c as 0] + ((cells[from + c] ?? 0) - paper[c as 0]) * fade;
        data[to + 3] = 255;
      }
    }
  }
  canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  return canvas;
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i += 7) sum += values[i] ?? 0;
  return (7 * sum) / Math.max(values.length, 1);
}

export const volumeRamp = (dark: boolean): Ramp => (dark ? "ink" : "paper");

/** A grid of numbers as a picture; cells that are not computed yet stay empty. */
export function shade(values: Tensor, low: number, high: number, paint: (t: number) => [number, number, number, number]): HTMLCanvasElement {
  const [rows = 1, columns = 1] = values.shape;
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const pixels = new ImageData(columns, rows);
  for (let k = 0; k < rows * columns; k++) {
    const value = values.data[k] ?? NaN;
    const at = 4 * ((rows - 1 - Math.floor(k / columns)) * columns + (k % columns));
    if (Number.isFinite(value)) pixels.data.set(paint((value - low) / (high - low || 1)), at);
  }
  canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  return canvas;
}

export const volumePicture = ({ values, low, high }: Volume, dark: boolean): HTMLCanvasElement =>
  shade(values, low, high, (t) => [...colour(t, volumeRamp(dark)), 255]);

/** A log density as a haze of one colour. */
export function haze(log: Tensor, hex: string): HTMLCanvasElement {
  let top = -Infinity;
  for (let i = 0; i < log.data.length; i++) if ((log.data[i] ?? -Infinity) > top) top = log.data[i] as number;
  const [r, g, b] = rgb(hex);
  return shade(log, top, top + 1, (t) => [r, g, b, Math.round(170 * Math.exp(t))]);
}

export function place(context: Pen, picture: HTMLCanvasElement, { x0, y0, x1, y1 }: Frame, view: View, smooth: boolean): void {
  context.imageSmoothingEnabled = smooth;
  context.drawImage(picture, view.px(x0), view.py(y1), (x1 - x0) * view.scale, (y1 - y0) * view.scale);
  context.imageSmoothingEnabled = true;
}

export function drawContours(context: Pen, found: Contours[], view: View, stroke: string, dash: number[]): void {
  context.strokeStyle = stroke;
  context.lineWidth = 1.6;
  context.setLineDash(dash);
  for (const { lines } of found) {
    context.beginPath();
    for (const line of lines) {
      context.moveTo(view.px(line[0] ?? 0), view.py(line[1] ?? 0));
      for (let k = 2; k < line.length; k += 2) context.lineTo(view.px(line[k] ?? 0), view.py(line[k + 1] ?? 0));
    }
    context.stroke();
  }
  context.setLineDash([]);
}

/** Ellipses of one standard deviation, and of two, dashed, if `twice`. */
export function drawEllipses(context: Pen, { centre, axes }: Ellipses, view: View, stroke: string, twice = false): void {
  context.strokeStyle = stroke;
  const n = axes.data.length / 4;
  context.lineWidth = n > 20 ? 0.8 : 1.6;
  context.globalAlpha = n > 100 ? 0.45 : 0.9;
  context.setLineDash(twice ? [5, 4] : []);
  for (let k = 0; k < n; k++) {
    const [a = 0, b = 0, c = 0, d = 0] = axes.data.subarray(4 * k, 4 * k + 4);
    const cx = view.px(centre.data[2 * k] ?? 0);
    const cy = view.py(centre.data[2 * k + 1] ?? 0);
    for (const times of twice ? [1, 2] : [1]) {
      context.beginPath();
      for (let step = 0; step <= 48; step++) {
        const cos = times * Math.cos((step * Math.PI) / 24);
        const sin = times * Math.sin((step * Math.PI) / 24);
        context.lineTo(cx + (a * cos + b * sin) * view.scale, cy - (c * cos + d * sin) * view.scale);
      }
      context.stroke();
    }
  }
  context.globalAlpha = 1;
  context.setLineDash([]);
}

export function drawLine(context: Pen, points: ArrayLike<number>, view: View, stroke: string, dash: number[], halo: string): void {
  for (const [style, width] of [
    [halo, 6],
    [stroke, 2.5],
  ] as [string, number][]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.setLineDash(style === halo ? [] : dash);
    context.beginPath();
    for (let k = 0; k + 1 < points.length; k += 2) context.lineTo(view.px(points[k] ?? 0), view.py(points[k + 1] ?? 0));
    context.stroke();
  }
  context.setLineDash([]);
}

/** A named pin: an end of a path. */
export function drawPin(context: Pen, x: number, y: number, name: string, fill: string, text: string): void {
  context.fillStyle = fill;
  context.strokeStyle = text;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, y, 11, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
  context.fillStyle = text;
  context.font = "600 13px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(name, x, y + 0.5);
}

export function drawRing(context: Pen, x: number, y: number, radius: number, stroke: string, halo: string): void {
  for (const [style, width] of [
    [halo, 5],
    [stroke, 2.2],
  ] as [string, number][]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

export function drawCross(context: Pen, x: number, y: number, stroke: string, halo: string): void {
  for (const [style, width] of [
    [halo, 5],
    [stroke, 2],
  ] as [string, number][]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.beginPath();
    for (const [dx, dy] of [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ] as [number, number][]) {
      context.moveTo(x + 5 * dx, y + 5 * dy);
      context.lineTo(x + 15 * dx, y + 15 * dy);
    }
    context.stroke();
  }
}

export const LEFT = 46;
export const BOTTOM = 40;

/** Ticks and names of both axes, around a plot that is LEFT from the left and BOTTOM from the bottom. */
export function drawAxes(context: Pen, view: View, names: [string, string], { ink, quiet, line }: Colours, oneAxis: boolean): void {
  const { x0, x1, y0, y1 } = view.frame;
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = quiet;
  context.strokeStyle = line;
  context.lineWidth = 1;
  context.textAlign = "center";
  context.textBaseline = "top";
  const across = ticks(x0, x1, Math.max(view.width / 80, 5));
  for (const at of across) {
    const px = LEFT + view.px(at);
    stroke(context, px, view.height, px, view.height + 5);
    context.fillText(label(at, across), Math.min(Math.max(px, LEFT + 8), LEFT + view.width - 12), view.height + 7);
  }
  if (!oneAxis) {
    context.textAlign = "right";
    context.textBaseline = "middle";
    const up = ticks(y0, y1, Math.max(view.height / 70, 4));
    for (const at of up) {
      const py = view.py(at);
      stroke(context, LEFT - 5, py, LEFT, py);
      context.fillText(label(at, up), LEFT - 7, Math.min(Math.max(py, 7), view.height - 7));
    }
  }
  context.fillStyle = ink;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  context.fillText(fitted(context, names[0], view.width), LEFT + view.width / 2, view.height + BOTTOM - 1);
  if (oneAxis) return;
  context.save();
  context.translate(1, view.height / 2);
  context.rotate(-Math.PI / 2);
  context.textBaseline = "top";
  context.fillText(fitted(context, names[1], view.height), 0, 0);
  context.restore();
}

function stroke(context: Pen, x0: number, y0: number, x1: number, y1: number): void {
  context.beginPath();
  context.moveTo(Math.round(x0) + 0.5, Math.round(y0) + 0.5);
  context.lineTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
  context.stroke();
}

function label(at: number, all: number[]): string {
  const step = Math.abs((all[1] ?? 1) - (all[0] ?? 0)) || 1;
  const digits = Math.min(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), 6);
  return at.toFixed(digits).replace("-", "−");
}

function fitted(context: Pen, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  let cut = text;
  while (cut.length > 3 && context.measureText(`${cut}…`).width > width) cut = cut.slice(0, -1);
  return `${cut}…`;
}
