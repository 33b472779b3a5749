// Decoded cells as pictures, and numbers as colours.
import type { Tensor } from "./wire";

/** Pixels (h, w, c) of bytes, c = 1 or 3, as an image. */
export function image(cells: Uint8Array, height: number, width: number, channels: number): ImageData {
  const pixels = new Uint8ClampedArray(4 * height * width);
  for (let i = 0; i < height * width; i++) {
    pixels[4 * i] = cells[i * channels] ?? 0;
    pixels[4 * i + 1] = cells[i * channels + (channels > 2 ? 1 : 0)] ?? 0;
    pixels[4 * i + 2] = cells[i * channels + (channels > 2 ? 2 : 0)] ?? 0;
    pixels[4 * i + 3] = 255;
  }
  return new ImageData(pixels, width, height);
}

/** Paint one picture over a whole canvas, its pixels kept square. */
export function paint(canvas: HTMLCanvasElement, cells: Uint8Array, shape: number[]): void {
  const [height = 1, width = 1, channels = 1] = shape;
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d")?.putImageData(image(cells, height, width, channels), 0, 0);
}

/** The i-th picture of tiles (n, h, w, c). */
export function tile(tiles: Tensor, i: number): { cells: Uint8Array; shape: number[] } {
  const shape = tiles.shape.slice(-3);
  const size = shape.reduce((product, side) => product * side, 1);
  return { cells: (tiles.data as Uint8Array).subarray(i * size, (i + 1) * size), shape };
}

/** Twelve colours that stay apart on light and on dark, then again from the start with another mark. */
export const CLASSES = [
  "#1f77b4", "#d9822b", "#2ca02c", "#d62728", "#9467bd", "#8c6d4f",
  "#e377c2", "#7f8c8d", "#a3a317", "#17a2b8", "#4b5fd1", "#c2417c",
];

type Stops = [number, number, number][];
const VIRIDIS: Stops = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]];
const PAPER: Stops = [[253, 252, 250], [224, 214, 198], [176, 156, 128], [120, 96, 70]];
const INK: Stops = [[24, 27, 32], [52, 56, 66], [98, 102, 116], [160, 164, 178]];
const BLUE: Stops = [[255, 255, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]];
const NIGHT: Stops = [[20, 24, 31], [20, 58, 99], [33, 113, 181], [107, 174, 214], [222, 235, 247]];
export const RAMPS = { viridis: VIRIDIS, paper: PAPER, ink: INK, blue: BLUE, night: NIGHT };
export type Ramp = keyof typeof RAMPS;

/** The colour of t in [0, 1] on a ramp. */
export function colour(t: number, ramp: Ramp = "viridis"): [number, number, number] {
  const stops = RAMPS[ramp];
  const at = Math.min(Math.max(Number.isFinite(t) ? t : 0, 0), 1) * (stops.length - 1);
  const low = stops[Math.floor(at)] ?? [0, 0, 0];
  const high = stops[Math.min(Math.floor(at) + 1, stops.length - 1)] ?? low;
  const part = at - Math.floor(at);
  return [0, 1, 2].map((i) => Math.round((low[i] ?? 0) + part * ((high[i] ?? 0) - (low[i] ?? 0)))) as [number, number, number];
}

/** Values (side, side), the second axis upwards, as an image. */
export function heat(values: Tensor, low: number, high: number, ramp: Ramp): ImageData {
  const [rows = 1, columns = 1] = values.shape;
  const pixels = new Uint8ClampedArray(4 * rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = values.data[(rows - 1 - row) * columns + column] ?? 0;
      pixels.set([...colour((value - low) / (high - low || 1), ramp), 255], 4 * (row * columns + column));
    }
  }
  return new ImageData(pixels, columns, rows);
}
