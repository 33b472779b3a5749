// A window on the plane: which part of it a canvas shows, with panning and zooming. The second axis points upwards.

export interface Frame {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

export class View {
  /** Width and height of the canvas in CSS pixels. */
  width = 1;
  height = 1;
  private cx = 0;
  private cy = 0;
  /** CSS pixels per unit of the plane, the same along both axes. */
  scale = 1;

  fit(frame: Frame): void {
    this.cx = (frame.x0 + frame.x1) / 2;
    this.cy = (frame.y0 + frame.y1) / 2;
    this.scale = Math.min(this.width / Math.max(frame.x1 - frame.x0, 1e-9), this.height / Math.max(frame.y1 - frame.y0, 1e-9));
  }

  get frame(): Frame {
    const right = this.width / 2 / this.scale;
    const up = this.height / 2 / this.scale;
    return { x0: this.cx - right, y0: this.cy - up, x1: this.cx + right, y1: this.cy + up };
  }

  get centre(): [number, number] {
    return [this.cx, this.cy];
  }

  look(cx: number, cy: number, scale: number): void {
    this.cx = cx;
    this.cy = cy;
    this.scale = scale;
  }

  resize(width: number, height: number): void {
    const kept = Math.min(width / this.width, height / this.height);
    if (this.width > 1 && Number.isFinite(kept)) this.scale *= kept;
    this.width = width;
    this.height = height;
  }

  /** Canvas pixels of a point of the plane. */
  px(x: number): number {
    return this.width / 2 + (x - this.cx) * this.scale;
  }

  py(y: number): number {
    return this.height / 2 - (y - this.cy) * this.scale;
  }

  /** The point of the plane under a canvas pixel. */
  at(px: number, py: number): [number, number] {
    return [this.cx + (px - this.width / 2) / this.scale, this.cy - (py - this.height / 2) / this.scale];
  }

  pan(dx: number, dy: number): void {
    this.cx -= dx / this.scale;
    this.cy += dy / this.scale;
  }

  /** Zoom by a factor; the point under the pixel stays where it is. */
  zoom(factor: number, px = this.width / 2, py = this.height / 2): void {
    const [x, y] = this.at(px, py);
    this.scale *= factor;
    this.cx = x - (px - this.width / 2) / this.scale;
    this.cy = y + (py - this.height / 2) / this.scale;
  }
}

/** Round numbers for the ticks of an axis between two ends, about `count` of them. */
export function ticks(low: number, high: number, count = 6): number[] {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((each) => each * power >= rough) ?? 10) * power;
  const found: number[] = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

/** A canvas with as many pixels as the screen has; returns its context in CSS pixels. */
export function prepared(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser has no 2d canvas");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
