// Pictures to keep: the map with its axes, legend and names, and strips of decodings.
import { whole } from "../core/numbers";
import { colour, image, tile, type Ramp } from "../core/pictures";
import { theme, token } from "../core/theme";
import { BOTTOM, LEFT, volumeRamp, type Pen } from "./layers";
import { groundWords } from "./legend";
import type { MapCanvas } from "./map";
import { category, MISSING, trace, type Style } from "./paint";
import { short } from "./parts";
import type { Station } from "./station";
import type { Geodesic } from "./types";

const EDGE = 16;
const LINE = 22;

interface Entry {
  text: string;
  draw: (context: Pen, x: number, y: number) => number;
}

/** A picture of the map that is yet to be drawn. */
export interface Sheet {
  width: number;
  height: number;
  /** Whose map it is, its size in rows, and what its background is. */
  title: string;
  /** Paper, title and legend; `plot` draws the map between them, axes included, its upper left corner at (x, y). */
  draw: (pen: Pen, plot: (x: number, y: number) => void) => void;
}

/** The map as it is on the screen, with what says whose it is and what its colours mean. */
export function mapPicture(station: Station, map: MapCanvas): HTMLCanvasElement {
  const sheet = mapSheet(station);
  const canvas = document.createElement("canvas");
  const ratio = Math.max(window.devicePixelRatio || 1, 2);
  canvas.width = sheet.width * ratio;
  canvas.height = sheet.height * ratio;
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  context.scale(ratio, ratio);
  sheet.draw(context, (x, y) => map.drawInto(context, x, y));
  return canvas;
}

/** What a picture of the map holds, and where. */
export function mapSheet(station: Station): Sheet {
  const { width, height } = station.view;
  const wide = width + LEFT + 2 * EDGE;
  const entries = legend(station);
  const measure = document.createElement("canvas").getContext("2d") as CanvasRenderingContext2D;
  measure.font = FONT;
  const lines = broken(measure, entries, wide - 2 * EDGE);
  const info = station.info.value;
  const plane = station.flat.value?.said ?? "";
  const title = [info?.name ?? "", info ? `${info.latent} ${info.latent === 1 ? "latent" : "latents"}` : "", info?.sample ?? `${whole(station.cloud.value?.n ?? 0)} rows`].filter(Boolean).join(" · ");
  const ground = groundWords(station);
  const head = [{ text: title, font: `600 ${FONT}` }, ...[plane, ground].filter(Boolean).map((text) => ({ text, font: FONT }))].flatMap(({ text, font }) => {
    measure.font = font;
    return folded(measure, text, wide - 2 * EDGE).map((line) => ({ line, font }));
  });
  const top = EDGE + head.length * LINE + 4;
  const high = top + height + BOTTOM + 10 + lines.length * LINE + EDGE;
  return {
    width: wide,
    height: high,
    title: [title, ground].filter(Boolean).join(". "),
    draw: (pen, plot) => {
      pen.fillStyle = token("paper");
      pen.fillRect(0, 0, wide, high);
      head.forEach(({ line, font }, k) => {
        pen.font = font;
        said(pen, line, EDGE, EDGE + LINE * (k + 0.5));
      });
      plot(EDGE, top);
      pen.font = FONT;
      lines.forEach((line, k) => {
        let x = EDGE;
        for (const entry of line) x += entry.draw(pen, x, top + height + BOTTOM + 10 + LINE * (k + 0.5)) + 16;
      });
    },
  };
}

const FONT = "13px system-ui, sans-serif";

function legend(station: Station): Entry[] {
  const found: Entry[] = [];
  const colouring = station.colouring.value;
  const column = station.column.value;
  if (colouring?.kind === "category") {
    found.push(words(`${column}:`));
    colouring.names.forEach((name, code) => {
      const text = `${name} (${whole(colouring.counts[code] ?? 0)})${station.hidden.value.has(code) ? ", hidden" : ""}`;
      found.push(marked(category(code, colouring.names), text));
    });
  } else if (colouring) {
    found.push(ramp(column, colouring.low, colouring.high, "viridis"));
    if (colouring.values.data.some((value) => !Number.isFinite(value))) found.push(marked(MISSING, "missing"));
  }
  const volume = station.volume.value?.value;
  if (station.ground.value === "volume" && volume) found.push(ramp(volume.said || "log √det G", volume.low, volume.high, volumeRamp(theme() === "dark")));
  return found;
}

const marked = ({ rgb, mark }: Style, text: string): Entry => ({
  text: `    ${text}`,
  draw: (context, x, y) => {
    context.beginPath();
    trace(context, mark, x + 6, y, 4.5);
    context.fillStyle = context.strokeStyle = `rgb(${rgb.join(" ")})`;
    context.lineWidth = 1.8;
    if (mark === "ring") context.stroke();
    else context.fill();
    return 16 + said(context, text, x + 16, y);
  },
});

const words = (text: string): Entry => ({ text, draw: (context, x, y) => said(context, text, x, y) });

function ramp(name: string, low: number, high: number, ramped: Ramp): Entry {
  const [before, after] = [`${name}: ${short(low)}`, short(high)];
  return {
    text: `${before}${" ".repeat(40)}${after}`,
    draw: (context, x, y) => {
      let at = x + said(context, before, x, y) + 8;
      for (let k = 0; k < 120; k++) {
        context.fillStyle = `rgb(${colour(k / 119, ramped).join(" ")})`;
        context.fillRect(at + k, y - 6, 1.5, 12);
      }
      at += 128;
      return at - x + said(context, after, at, y);
    },
  };
}

function said(context: Pen, text: string, x: number, y: number): number {
  context.fillStyle = token("ink");
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillText(text, x, y);
  return context.measureText(text).width;
}

/** Words in lines no wider than the picture. */
function folded(context: Pen, text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1) ?? ""} ${word}`;
    if (lines.length && context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** Entries in lines no wider than the picture. */
function broken(context: Pen, entries: Entry[], width: number): Entry[][] {
  const lines: Entry[][] = [];
  let left = 0;
  for (const entry of entries) {
    const wide = context.measureText(entry.text).width + 20;
    if (!lines.length || left + wide > width) {
      lines.push([]);
      left = 0;
    }
    lines.at(-1)?.push(entry);
    left += wide;
  }
  return lines;
}

/** Both strips of a path, one above the other. */
export function stripsPicture(station: Station, found: Geodesic): HTMLCanvasElement {
  const side = 72;
  const steps = found.lengths.geodesic.length;
  const canvas = document.createElement("canvas");
  canvas.width = 2 * (EDGE + steps * (side + 4) + EDGE);
  canvas.height = 2 * (EDGE + LINE + 2 * (LINE + side + LINE) + EDGE);
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  context.scale(2, 2);
  context.fillStyle = token("paper");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.font = `600 ${FONT}`;
  said(context, station.info.value?.name ?? "", EDGE, EDGE + 8);
  (["geodesic", "straight"] as const).forEach((which, row) => {
    const top = EDGE + LINE + row * (2 * LINE + side);
    context.font = FONT;
    said(context, which === "geodesic" ? `Geodesic, length ${found.length.toFixed(3)}` : `Straight, length ${found.straight_length.toFixed(3)}`, EDGE, top + LINE / 2);
    for (let k = 0; k < steps; k++) {
      const { cells, shape } = tile(found.strips[which], k);
      const [height = 1, width = 1, channels = 1] = shape;
      const small = document.createElement("canvas");
      small.width = width;
      small.height = height;
      small.getContext("2d")?.putImageData(image(cells, height, width, channels), 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, EDGE + k * (side + 4), top + LINE, side, (side * height) / width);
      said(context, (found.lengths[which][k] ?? 0).toFixed(2), EDGE + k * (side + 4), top + LINE + side + 10);
    }
  });
  return canvas;
}
