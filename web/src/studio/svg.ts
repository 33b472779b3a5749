// The map as a drawing of vectors: what its picture holds, with points, lines and text that stay what they are.
import { whole } from "../core/numbers";
import type { View } from "../core/view";
import { LEFT, type Pen } from "./layers";
import type { MapCanvas } from "./map";
import type { Style } from "./paint";
import { mapSheet } from "./picture";
import { PointLayer, size } from "./points";
import type { Station } from "./station";

const MOST = 20_000; // points that are vectors; more of them are embedded as an image
const HALO = 'stroke-opacity="0.78" stroke-width="1.8" paint-order="stroke"';

/** The map as an SVG file that refers to nothing outside itself. */
export function mapSvg(station: Station, map: MapCanvas): string {
  const { view } = station;
  const sheet = mapSheet(station);
  const pen = new SvgPen();
  let points = "";
  sheet.draw(pen, (x, y) => {
    pen.open(`transform="translate(${x} ${y})" class="axes"`);
    map.drawFrame(pen);
    pen.close();
    pen.open(`transform="translate(${x + LEFT} ${y})" clip-path="url(#plot)"`);
    map.drawGround(pen);
    points = drawPoints(pen, map, view, station.info.value?.latent === 1);
    map.drawOver(pen);
    map.drawCross(pen);
    pen.close();
  });
  const said = `A map of latent means: ${points}.`;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<svg xmlns="http://www.w3.org/2000/svg" width="${sheet.width}" height="${sheet.height}" viewBox="0 0 ${sheet.width} ${sheet.height}">`,
    `<title>${escaped(sheet.title)}</title>`,
    `<desc>${escaped(said)}</desc>`,
    `<defs><clipPath id="plot"><rect width="${view.width}" height="${view.height}"/></clipPath></defs>`,
    pen.text,
    "</svg>\n",
  ].join("\n");
}

/** Draw the points that the view shows; says how many they are and how they are drawn. */
function drawPoints(pen: SvgPen, map: MapCanvas, view: View, line: boolean): string {
  const { look } = map;
  if (!look) return "no points";
  const { cloud, paint, bright, colours } = look;
  const radius = size(cloud.n);
  const seen = (i: number): boolean => {
    const [x, y] = [view.px(cloud.x(i)), view.py(cloud.y(i))];
    return !paint.off[paint.codes[i] ?? 0] && x >= 0 && y >= 0 && x <= view.width && y <= view.height;
  };
  const shown = cloud.order.filter(seen);
  if (shown.length > MOST) {
    const layer = new PointLayer();
    const canvas = document.createElement("canvas");
    canvas.width = 2 * view.width;
    canvas.height = 2 * view.height;
    const context = canvas.getContext("2d") as CanvasRenderingContext2D;
    context.scale(2, 2);
    layer.draw(cloud, paint, bright, view, 2, colours.paper, line);
    layer.put(context, view);
    pen.open('class="points"');
    pen.drawImage(canvas, 0, 0, view.width, view.height);
    pen.close();
    return `${whole(shown.length)} points, as an image, since there are more than ${whole(MOST)}`;
  }
  for (const pass of bright ? [0, 1] : [-1]) {
    const large = radius * (pass === 1 ? 1.25 : 1);
    const paper = !line && (cloud.n <= MOST || pass === 1) ? hex(colours.paper) : "none";
    const faded = pass === 0 ? ' opacity="0.27"' : "";
    pen.open(`class="points" stroke="${paper}" ${HALO}`);
    for (const i of shown) {
      if (bright && bright[i] !== pass) continue;
      const style = paint.styles[paint.codes[i] ?? 0] as Style;
      const [x, y] = [view.px(cloud.x(i)), view.py(cloud.y(i))];
      pen.put(line ? bar(style, x, y, faded) : mark(style, x, y, large, paper, faded));
    }
    pen.close();
  }
  return `${whole(shown.length)} points`;
}

/** A point of a single latent. */
const bar = ({ rgb }: Style, x: number, y: number, faded: string): string =>
  `<path d="M${fine(x)} ${fine(y - 8)}v17" stroke="${hex(rgb)}" stroke-width="1" stroke-opacity="0.59"${faded}/>`;

/** A point of a plane. The halo is its group's outline; a ring has an outline of its own and is filled with paper instead. */
function mark({ rgb, mark: kind }: Style, x: number, y: number, radius: number, paper: string, faded: string): string {
  const fill = `fill="${hex(rgb)}"${faded}`;
  if (kind === "square") return `<rect x="${fine(x - 0.9 * radius)}" y="${fine(y - 0.9 * radius)}" width="${fine(1.8 * radius)}" height="${fine(1.8 * radius)}" ${fill}/>`;
  if (kind === "diamond") {
    const reach = fine(1.25 * radius);
    return `<path d="M${fine(x)} ${fine(y - 1.25 * radius)}l${reach} ${reach}l-${reach} ${reach}l-${reach} -${reach}z" ${fill}/>`;
  }
  const at = `cx="${fine(x)}" cy="${fine(y)}" r="${fine(radius)}"`;
  if (kind === "disc") return `<circle ${at} ${fill}/>`;
  return `<circle ${at} fill="${paper}" stroke="${hex(rgb)}" stroke-width="1.4" stroke-opacity="1"${faded}/>`;
}

const fine = (value: number): string => String(Math.round(value * 100) / 100);
const hex = (rgb: ArrayLike<number>): string => `#${Array.from(rgb, (part) => part.toString(16).padStart(2, "0")).join("")}`;

/** Text that XML takes, in an attribute or between tags. */
const escaped = (text: string): string =>
  text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd")
    .replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

/** A pen that writes what a canvas would paint. Circles are whole, and text is placed by its baseline, which every reader knows. */
class SvgPen implements Pen {
  fillStyle = "#000000";
  strokeStyle = "#000000";
  lineWidth = 1;
  lineJoin: CanvasLineJoin = "miter";
  globalAlpha = 1;
  font = "13px sans-serif";
  textAlign: CanvasTextAlign = "left";
  textBaseline: CanvasTextBaseline = "alphabetic";
  imageSmoothingEnabled = true;
  private readonly ruler = document.createElement("canvas").getContext("2d") as CanvasRenderingContext2D;
  private readonly parts: string[] = [];
  private path = "";
  private dash: number[] = [];
  private moves = "";
  private kept: { moves: string; textBaseline: CanvasTextBaseline }[] = [];

  get text(): string {
    return this.parts.join("\n");
  }

  put(element: string): void {
    this.parts.push(element);
  }

  open(attributes: string): void {
    this.put(`<g ${attributes}>`);
  }

  close(): void {
    this.put("</g>");
  }

  save(): void {
    this.kept.push({ moves: this.moves, textBaseline: this.textBaseline });
  }

  restore(): void {
    Object.assign(this, this.kept.pop());
  }

  translate(x: number, y: number): void {
    this.moves += `translate(${fine(x)} ${fine(y)})`;
  }

  rotate(angle: number): void {
    this.moves += `rotate(${fine((angle * 180) / Math.PI)})`;
  }

  setLineDash(dash: number[]): void {
    this.dash = dash;
  }

  beginPath(): void {
    this.path = "";
  }

  moveTo(x: number, y: number): void {
    this.path += `M${fine(x)} ${fine(y)}`;
  }

  lineTo(x: number, y: number): void {
    this.path += `${this.path ? "L" : "M"}${fine(x)} ${fine(y)}`;
  }

  closePath(): void {
    this.path += "Z";
  }

  arc(x: number, y: number, radius: number): void {
    const [r, whole] = [fine(radius), fine(2 * radius)];
    this.path += `M${fine(x - radius)} ${fine(y)}a${r} ${r} 0 1 0 ${whole} 0a${r} ${r} 0 1 0 -${whole} 0Z`;
  }

  rect(x: number, y: number, width: number, height: number): void {
    this.path += `M${fine(x)} ${fine(y)}h${fine(width)}v${fine(height)}h${fine(-width)}Z`;
  }

  fill(): void {
    if (this.path) this.put(`<path d="${this.path}"${this.inked("fill", this.fillStyle)}${this.moved}/>`);
  }

  stroke(): void {
    const dash = this.dash.length ? ` stroke-dasharray="${this.dash.join(" ")}"` : "";
    if (this.path) this.put(`<path d="${this.path}" fill="none"${this.inked("stroke", this.strokeStyle)} stroke-width="${this.lineWidth}" stroke-linejoin="${this.lineJoin}"${dash}${this.moved}/>`);
  }

  fillRect(x: number, y: number, width: number, height: number): void {
    this.put(`<rect x="${fine(x)}" y="${fine(y)}" width="${fine(width)}" height="${fine(height)}"${this.inked("fill", this.fillStyle)}${this.moved}/>`);
  }

  drawImage(picture: HTMLCanvasElement, x: number, y: number, width: number, height: number): void {
    this.put(`<image x="${fine(x)}" y="${fine(y)}" width="${fine(width)}" height="${fine(height)}" preserveAspectRatio="none" href="${picture.toDataURL("image/png")}"${this.moved}/>`);
  }

  measureText(text: string): TextMetrics {
    this.ruler.font = this.font;
    this.ruler.textBaseline = this.textBaseline;
    return this.ruler.measureText(text);
  }

  fillText(text: string, x: number, y: number): void {
    const above = this.measureText(text).actualBoundingBoxAscent;
    this.ruler.textBaseline = "alphabetic";
    const baseline = y + this.ruler.measureText(text).actualBoundingBoxAscent - above;
    const [, weight = "400", height = "13", family = ""] = /^(?:(\d+) )?(\d+)px (.*)$/.exec(this.font) ?? [];
    const anchor = { center: "middle", right: "end" }[this.textAlign as string] ?? "start";
    this.put(`<text x="${fine(x)}" y="${fine(baseline)}" font-family="${escaped(family)}" font-size="${height}" font-weight="${weight}" text-anchor="${anchor}"${this.inked("fill", this.fillStyle)}${this.moved}>${escaped(text)}</text>`);
  }

  private get moved(): string {
    return this.moves ? ` transform="${this.moves}"` : "";
  }

  /** A colour as six digits and an opacity, which older readers know too. */
  private inked(which: "fill" | "stroke", style: string): string {
    this.ruler.fillStyle = style;
    const found = this.ruler.fillStyle;
    const [r = 0, g = 0, b = 0, alpha = 1] = found.startsWith("#") ? [] : (found.match(/[\d.]+/g) ?? []).map(Number);
    const opacity = alpha * this.globalAlpha;
    return ` ${which}="${found.startsWith("#") ? found : hex([r, g, b])}"${opacity < 1 ? ` ${which}-opacity="${fine(opacity)}"` : ""}`;
  }
}
