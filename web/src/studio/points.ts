// The layer of points, drawn pixel by pixel into a bitmap of its own that is wider than the map; pans reuse it.
import type { View } from "../core/view";
import type { Cloud } from "./cloud";
import { coverage, type Mark, type Paint } from "./paint";

const MARGIN = 0.2; // of width and height, beyond each edge

interface Stamp {
  /** Bytes from the centre's pixel. */
  steps: Int32Array;
  cover: Uint8Array;
  halo: Uint8Array;
}

export class PointLayer {
  readonly canvas = document.createElement("canvas");
  private pixels: ImageData | null = null;
  private centre: [number, number] = [0, 0];
  private scale = 0;
  private width = 0;
  private height = 0;

  /** Draw every point that a view shows. `bright`: 1 where a point is selected; the others fade. */
  draw(cloud: Cloud, paint: Paint, bright: Uint8Array | null, view: View, ratio: number, paper: [number, number, number], line: boolean): void {
    const wide = Math.ceil(view.width * (1 + 2 * MARGIN) * ratio);
    const high = Math.ceil(view.height * (1 + 2 * MARGIN) * ratio);
    if (!this.pixels || this.pixels.width !== wide || this.pixels.height !== high) {
      this.canvas.width = wide;
      this.canvas.height = high;
      this.pixels = new ImageData(wide, high);
    } else this.pixels.data.fill(0);
    this.centre = view.centre;
    this.scale = view.scale;
    this.width = wide / ratio;
    this.height = high / ratio;
    const data = new Uint8Array(this.pixels.data.buffer);
    const radius = size(cloud.n) * ratio;
    const stamps = paint.styles.map((style) => stamp(line ? "disc" : style.mark, radius, cloud.n <= 20_000, line, wide));
    const bold = paint.styles.map((style) => stamp(line ? "disc" : style.mark, radius * 1.25, true, line, wide));
    const sx = view.scale * ratio;
    const ox = wide / 2 - view.centre[0] * sx;
    const oy = high / 2 + view.centre[1] * sx;
    const edge = Math.ceil(line ? 9 * ratio : radius * 2 + 2);
    const passes = bright ? [0, 1] : [-1];
    for (const pass of passes) {
      for (let k = 0; k < cloud.n; k++) {
        const i = cloud.order[k] as number;
        if (pass >= 0 && (bright as Uint8Array)[i] !== pass) continue;
        const code = paint.codes[i] as number;
        if (paint.off[code]) continue;
        const px = Math.round(ox + (cloud.points[2 * i] as number) * sx);
        const py = Math.round(oy - (cloud.points[2 * i + 1] as number) * sx);
        if (px < edge || py < edge || px >= wide - edge || py >= high - edge) continue;
        const { rgb } = paint.styles[code] as Paint["styles"][number];
        press(data, 4 * (py * wide + px), (pass === 1 ? bold : stamps)[code] as Stamp, rgb, paper, pass === 0 ? 70 : 256);
      }
    }
    this.canvas.getContext("2d")?.putImageData(this.pixels, 0, 0);
  }

  /** Whether the bitmap shows all that a view would. */
  covers(view: View): boolean {
    if (!this.scale) return false;
    const grown = view.scale / this.scale;
    const dx = Math.abs(view.centre[0] - this.centre[0]) * view.scale;
    const dy = Math.abs(view.centre[1] - this.centre[1]) * view.scale;
    return dx + view.width / 2 <= (this.width / 2) * grown + 1 && dy + view.height / 2 <= (this.height / 2) * grown + 1;
  }

  /** Put the bitmap where a view now has it, stretched if it was drawn at another scale. */
  put(context: CanvasRenderingContext2D, view: View): void {
    if (!this.scale) return;
    const grown = view.scale / this.scale;
    const wide = this.width * grown;
    const high = this.height * grown;
    context.drawImage(this.canvas, view.px(this.centre[0]) - wide / 2, view.py(this.centre[1]) - high / 2, wide, high);
  }
}

/** A point's radius in CSS pixels; the more there are the smaller. */
export const size = (n: number): number => (n > 40_000 ? 1.3 : n > 8_000 ? 1.9 : n > 1_500 ? 2.6 : 3.4);

function stamp(mark: Mark, radius: number, halo: boolean, line: boolean, wide: number): Stamp {
  const reach = Math.ceil(line ? 8 : radius * 1.3 + 1.5);
  const steps: number[] = [];
  const cover: number[] = [];
  const around: number[] = [];
  for (let y = -reach; y <= reach; y++) {
    for (let x = -reach; x <= reach; x++) {
      const inside = line ? (x === 0 ? 150 : 0) : Math.round(255 * coverage(mark, x, y, radius));
      const ring = !line && halo ? Math.round(200 * coverage(mark === "ring" ? "disc" : mark, x, y, radius + 0.9)) : 0;
      if (inside < 8 && ring < 8) continue;
      steps.push(4 * (x + y * wide));
      cover.push(inside);
      around.push(ring);
    }
  }
  return { steps: Int32Array.from(steps), cover: Uint8Array.from(cover), halo: Uint8Array.from(around) };
}

function press(data: Uint8Array, at: number, stamped: Stamp, rgb: [number, number, number], paper: [number, number, number], strength: number): void {
  const [r, g, b] = rgb;
  const { steps, cover, halo } = stamped;
  for (let k = 0; k < cover.length; k++) {
    const p = at + (steps[k] as number);
    const ring = ((halo[k] as number) * strength) >> 8;
    const c = ((cover[k] as number) * strength) >> 8;
    if (ring > c) mix(data, p, paper[0], paper[1], paper[2], ring);
    if (c) mix(data, p, r, g, b, c);
  }
}

function mix(data: Uint8Array, p: number, r: number, g: number, b: number, c: number): void {
  const a = data[p + 3] as number;
  if (a === 0) {
    data[p] = r;
    data[p + 1] = g;
    data[p + 2] = b;
    data[p + 3] = c;
    return;
  }
  data[p] = (data[p] as number) + (((r - (data[p] as number)) * c) >> 8);
  data[p + 1] = (data[p + 1] as number) + (((g - (data[p + 1] as number)) * c) >> 8);
  data[p + 2] = (data[p + 2] as number) + (((b - (data[p + 2] as number)) * c) >> 8);
  data[p + 3] = a + (((255 - a) * c) >> 8);
}
