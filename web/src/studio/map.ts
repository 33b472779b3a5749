// The map's three canvases: axes, plot (background and points) and what moves over it. Draws once a frame, and only what changed.
import { effect } from "@preact/signals";
import { theme, token } from "../core/theme";
import { prepared } from "../core/view";
import type { Cloud } from "./cloud";
import { contours, type Contours } from "./contours";
import {
  BOTTOM, drawAxes, drawContours, drawCross, drawEllipses, drawLine, drawPin, drawRing, haze, LEFT, mosaic, place, volumePicture,
  type Colours, type Pen,
} from "./layers";
import { paintOf, rgb, type Paint } from "./paint";
import { PointLayer } from "./points";
import { fillGround } from "./questions";
import type { Station } from "./station";
import type { GridPosterior } from "./types";

const SETTLED = 140; // ms without a change of view: then the points are drawn anew
const CHEAP = 9; // ms; points that are drawn faster are drawn anew in every frame
const SHARES = [0.5, 0.9, 0.99];

export class MapCanvas {
  readonly points = new PointLayer();
  /** A line under way: lasso or rectangle, in plane coordinates. */
  line: [number, number][] = [];
  private stop: (() => void)[] = [];
  private asked = 0;
  private stale = { points: true, plot: true, over: true };
  private settle = 0;
  private groundTimer = 0;
  private moving = false;
  private lastFrame = 0;
  private lastDraw = 0;
  private paint: Paint | null = null;
  private bright: Uint8Array | null = null;
  private ground: { key: unknown; dark: boolean; picture: HTMLCanvasElement } | null = null;
  private fog: { key: unknown; dark: boolean; picture: HTMLCanvasElement; p: Contours[]; q: Contours[] } | null = null;
  private colours: Colours = palette();

  constructor(
    readonly station: Station,
    private readonly axes: HTMLCanvasElement,
    private readonly plot: HTMLCanvasElement,
    readonly over: HTMLCanvasElement,
    private readonly cross: HTMLElement,
  ) {
    const s = station;
    this.stop = [
      effect(() => {
        theme();
        this.colours = palette();
        this.mark("points", "plot", "over");
      }),
      effect(() => {
        theme();
        const cloud = s.cloud.value;
        this.paint = cloud && paintOf(s.colouring.value, cloud.n, s.hidden.value, this.colours.dark ? [150, 180, 210] : [58, 98, 140]);
        this.mark("points", "over");
      }),
      effect(() => {
        const cloud = s.cloud.value;
        const positions = s.selection.value?.positions;
        this.bright = null;
        if (cloud && positions?.length) {
          this.bright = new Uint8Array(cloud.n);
          for (const i of positions) this.bright[i] = 1;
        }
        this.mark("points", "over");
      }),
      effect(() => {
        void [s.lattice.value, s.volume.value, s.ground.value, s.posterior.value.value];
        this.mark("plot", "over");
      }),
      effect(() => {
        void [s.row.value.value, s.hover.value, s.hoverEllipse.value, s.anchors.value, s.path.value.value, s.ellipses.value.value, s.draws.value.value];
        this.mark("over");
      }),
      effect(() => {
        void s.seen.value;
        this.viewChanged();
      }),
      effect(() => {
        // an element of its own: a canvas as large as the map would be painted anew with every step of a drag
        void s.seen.value;
        const at = s.cross.value;
        this.cross.hidden = !at;
        if (at) this.cross.style.transform = `translate(${s.view.px(at[0])}px, ${s.view.py(at[1])}px)`;
      }),
      effect(() => {
        void [s.ground.value, s.cloud.value];
        this.groundSoon(0);
      }),
    ];
  }

  resize(width: number, height: number): void {
    this.station.resize(Math.max(width - LEFT, 40), Math.max(height - BOTTOM, 40));
  }

  dispose(): void {
    for (const each of this.stop) each();
    clearTimeout(this.settle);
    clearTimeout(this.groundTimer);
    cancelAnimationFrame(this.asked);
  }

  mark(...what: ("points" | "plot" | "over")[]): void {
    for (const each of what) this.stale[each] = true;
    if (this.stale.points) this.stale.plot = true;
    if (!this.asked) this.asked = requestAnimationFrame((now) => this.frame(now));
  }

  /** Map as a picture: what the canvases show, on paper. */
  drawInto(context: CanvasRenderingContext2D, x: number, y: number): void {
    const { width, height } = this.station.view;
    context.drawImage(this.axes, x, y, width + LEFT, height + BOTTOM);
    for (const layer of [this.plot, this.over]) context.drawImage(layer, x + LEFT, y, width, height);
    context.save();
    context.translate(x + LEFT, y);
    this.drawCross(context);
    context.restore();
  }

  /** What the points look like; null while there are none. */
  get look(): { cloud: Cloud; paint: Paint; bright: Uint8Array | null; colours: Colours } | null {
    const cloud = this.station.cloud.peek();
    return cloud && this.paint && { cloud, paint: this.paint, bright: this.bright, colours: this.colours };
  }

  /** What lies under the points: the background, and the haze of a posterior. */
  drawGround(pen: Pen): void {
    const { view, ground, lattice, volume, posterior } = this.station;
    const { dark } = this.colours;
    const background = ground.peek() === "lattice" ? lattice.peek() : ground.peek() === "volume" ? volume.peek() : null;
    if (background) {
      if (this.ground?.key !== background || this.ground.dark !== dark) {
        const { value } = background;
        this.ground = { key: background, dark, picture: "tiles" in value ? mosaic(value, this.colours) : volumePicture(value, dark) };
      }
      place(pen, this.ground.picture, background.frame, view, true);
    }
    const found = posterior.value.peek();
    if (found?.kind === "grid") {
      const fog = this.fogOf(found);
      const [x0, y0, x1, y1] = found.frame;
      place(pen, fog.picture, { x0, y0, x1, y1 }, view, true);
    }
  }

  /** Ticks and names, around the plot. */
  drawFrame(pen: Pen): void {
    const { view, info, flat } = this.station;
    const plane = flat.peek();
    if (plane) drawAxes(pen, view, plane.axes, this.colours, info.peek()?.latent === 1);
  }

  /** The crosshair; on the page an element of its own. */
  drawCross(pen: Pen): void {
    const { view, cross } = this.station;
    const at = cross.peek();
    if (at) drawCross(pen, view.px(at[0]), view.py(at[1]), this.colours.ink, `rgb(${this.colours.paper.join(" ")})`);
  }

  private viewChanged(): void {
    this.moving = true;
    clearTimeout(this.settle);
    this.settle = window.setTimeout(() => {
      this.moving = false;
      this.lastFrame = 0;
      this.mark("points", "plot", "over");
    }, SETTLED);
    this.groundSoon(SETTLED + 60);
    this.mark("plot", "over");
  }

  private groundSoon(wait: number): void {
    clearTimeout(this.groundTimer);
    this.groundTimer = window.setTimeout(() => fillGround(this.station), wait);
  }

  private frame(now: number): void {
    this.asked = 0;
    const { view, marks } = this.station;
    if (view.width <= 1) return;
    if (this.moving) {
      if (this.lastFrame && now - this.lastFrame < 500) marks.keep(marks.pans, now - this.lastFrame);
      this.lastFrame = now;
    }
    const cloud = this.station.cloud.peek();
    if (cloud && this.paint && (this.stale.points || (this.moving && (this.lastDraw < CHEAP || !this.points.covers(view))))) {
      const start = performance.now();
      this.points.draw(cloud, this.paint, this.bright, view, window.devicePixelRatio || 1, this.colours.paper, this.station.info.peek()?.latent === 1);
      this.lastDraw = performance.now() - start;
      this.stale.points = false;
      if (this.lastDraw >= CHEAP || !this.moving) requestAnimationFrame(() => marks.keep(marks.redraws, performance.now() - start));
      if (!marks.first) {
        requestAnimationFrame(() => {
          marks.first = marks.first || performance.now();
        });
      }
    }
    if (this.stale.plot) this.drawPlot();
    if (this.stale.over) {
      const context = prepared(this.over, view.width, view.height);
      context.clearRect(0, 0, view.width, view.height);
      this.drawOver(context);
    }
    this.stale.plot = this.stale.over = false;
  }

  private drawPlot(): void {
    const { view } = this.station;
    const context = prepared(this.plot, view.width, view.height);
    context.fillStyle = `rgb(${this.colours.paper.join(" ")})`;
    context.fillRect(0, 0, view.width, view.height);
    this.drawGround(context);
    this.points.put(context, view);
    const around = prepared(this.axes, view.width + LEFT, view.height + BOTTOM);
    around.clearRect(0, 0, view.width + LEFT, view.height + BOTTOM);
    this.drawFrame(around);
  }

  private fogOf(found: GridPosterior) {
    const { dark, accent } = this.colours;
    if (this.fog?.key !== found || this.fog.dark !== dark) {
      const [x0, y0, x1, y1] = found.frame;
      const frame = { x0, y0, x1, y1 };
      this.fog = { key: found, dark, picture: haze(found.log_posterior, accent), p: contours(found.log_posterior, frame, SHARES), q: found.log_q ? contours(found.log_q, frame, SHARES) : [] };
    }
    return this.fog;
  }

  /** What lies over the points: ellipses, contours, paths, rings, lassos. */
  drawOver(context: Pen): void {
    const s = this.station;
    const { view } = s;
    const { accent, second, ink, dark } = this.colours;
    const paper = `rgb(${this.colours.paper.join(" ")})`;
    const chosen = s.row.value.peek();
    const posterior = s.posterior.value.peek();
    if (posterior?.kind === "grid") {
      drawContours(context, this.fogOf(posterior).p, view, accent, []);
      drawContours(context, this.fogOf(posterior).q, view, second, [5, 4]);
    } else if (posterior) {
      context.fillStyle = accent;
      const { data } = posterior.points;
      context.globalAlpha = 0.75;
      for (let k = 0; k + 1 < data.length; k += 2) context.fillRect(view.px(data[k] ?? 0) - 1.5, view.py(data[k + 1] ?? 0) - 1.5, 3, 3);
      context.globalAlpha = 1;
    }
    const many = s.ellipses.value.peek();
    if (many) drawEllipses(context, many, view, ink);
    if (chosen && !(posterior?.kind === "grid" && posterior.log_q)) {
      drawEllipses(context, { centre: { data: Float64Array.from(chosen.point), shape: [1, 2] }, axes: chosen.ellipse }, view, second, true);
    }
    const hovered = s.hoverEllipse.peek();
    if (hovered) drawEllipses(context, hovered, view, second);
    const draws = s.draws.value.peek();
    if (draws) for (let k = 0; k + 1 < draws.points.data.length; k += 2) drawRing(context, view.px(draws.points.data[k] ?? 0), view.py(draws.points.data[k + 1] ?? 0), 4, accent, paper);
    const path = s.path.value.peek();
    const [a, b] = s.anchors.peek();
    if (path) {
      drawLine(context, path.straight.data, view, second, [7, 5], paper);
      drawLine(context, path.path.data, view, accent, [], paper);
    } else if (a && b) drawLine(context, [a.x, a.y, b.x, b.y], view, second, [7, 5], paper);
    if (a) drawPin(context, view.px(a.x), view.py(a.y), "A", accent, dark ? "#0d1a26" : "#ffffff");
    if (b) drawPin(context, view.px(b.x), view.py(b.y), "B", accent, dark ? "#0d1a26" : "#ffffff");
    if (chosen) drawRing(context, view.px(chosen.point[0]), view.py(chosen.point[1]), 8, ink, paper);
    const hover = s.hover.peek();
    const cloud = s.cloud.peek();
    if (hover && cloud) drawRing(context, view.px(cloud.x(hover.position)), view.py(cloud.y(hover.position)), 7, second, paper);
    const line = this.line.length ? this.line : (s.selection.peek()?.line ?? []);
    if (line.length > 1) {
      context.beginPath();
      for (const [x, y] of line) context.lineTo(view.px(x), view.py(y));
      context.closePath();
      context.fillStyle = dark ? "rgb(127 184 234 / 12%)" : "rgb(31 90 140 / 9%)";
      context.fill();
      context.strokeStyle = accent;
      context.lineWidth = 1.5;
      context.setLineDash([4, 3]);
      context.stroke();
      context.setLineDash([]);
    }
  }
}

function palette(): Colours {
  return {
    paper: rgb(token("paper")),
    ink: token("ink"),
    quiet: token("quiet"),
    line: token("line"),
    accent: token("accent"),
    second: token("second"),
    dark: theme() === "dark",
  };
}
