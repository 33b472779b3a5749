// The map of latent means with its cursor, the ends of two paths, and draws from the prior.
import { number } from "../../core/numbers";
import { CLASSES, colour as shade } from "../../core/pictures";
import { theme, token } from "../../core/theme";
import type { Tensor } from "../../core/wire";
import { Axes, dot, frameOf, label, MARGINS } from "./axes";
import { Drawing, type Grip, type Point } from "./drawing";
import { NAMES, place } from "./plane";
import type { Path } from "./path";

export type Held = "z" | "A" | "B";

export interface PlanePoints {
  frame: number[];
  points: Tensor;
  rows: Tensor;
}

export type Colours =
  | { kind: "category"; codes: Tensor; names: string[]; counts: number[] }
  | { kind: "number"; values: Tensor; low: number; high: number };

interface Props {
  points: PlanePoints;
  colours: Colours | null;
  at: Record<Held, Point>;
  held: Held;
  move: (which: Held, to: Point, done: boolean) => void;
  settle: (which: Held) => void;
  path: Path | null;
  drawn: Tensor | null;
}

const NEAR = 16; // pixels within which an end is taken
const LEGEND = 14; // names that are listed

export function PlaneMap({ points, colours, at, held, move, settle, path, drawn }: Props) {
  const frame = frameOf(points.frame);
  const axesOf = (width: number, height: number): Axes => Axes.square(frame, width, height);
  const pixels = (axes: Axes, [x, y]: Point): Point => [axes.x(x), axes.y(y)];

  const draw = (context: CanvasRenderingContext2D, width: number, height: number): void => {
    const axes = axesOf(width, height);
    context.fillStyle = token("raised");
    context.fillRect(axes.left, axes.top, axes.width, axes.height);
    axes.clip(context, () => {
      context.drawImage(cloud(points, colours, axes, width, height), 0, 0, width, height);
      if (path) {
        route(context, axes, path.straight, token("ink"), [5, 4]);
        route(context, axes, path.path, token("second"), []);
      }
      if (drawn) squares(context, axes, drawn);
      for (const end of ["A", "B"] as const) {
        const [x, y] = pixels(axes, at[end]);
        dot(context, [x, y], 9, end === held ? token("second") : token("ink"));
        context.fillStyle = token("paper");
        context.textAlign = "center";
        context.textBaseline = "middle";
        context.fillText(end, x, y + 0.5);
      }
      const [x, y] = pixels(axes, at.z);
      context.strokeStyle = token("paper");
      context.lineWidth = 4;
      cross(context, x, y);
      context.strokeStyle = token("ink");
      context.lineWidth = 1.75;
      cross(context, x, y);
      context.textAlign = "left";
      context.textBaseline = "bottom";
      label(context, "z", x + 9, y - 6);
    });
    axes.draw(context, NAMES);
  };

  const grab = (where: Point, width: number, height: number): Grip | null => {
    const axes = axesOf(width, height);
    if (!axes.holds(where)) return null;
    const inside = (to: Point): Point => {
      const [x, y] = axes.at(to);
      return [Math.min(Math.max(x, axes.frame.x0), axes.frame.x1), Math.min(Math.max(y, axes.frame.y0), axes.frame.y1)];
    };
    const end = (["A", "B"] as const).find(
      (each) => Math.hypot(pixels(axes, at[each])[0] - where[0], pixels(axes, at[each])[1] - where[1]) <= NEAR,
    );
    const which: Held = end ?? "z";
    let last = at[which];
    return {
      move: (to) => {
        last = inside(to);
        move(which, last, false);
      },
      done: () => move(which, last, true),
    };
  };

  const press = ({ key, shiftKey }: KeyboardEvent): boolean => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
    if (!way && key !== "Enter") return false;
    if (!way) {
      settle(held);
      return true;
    }
    const step = ((frame.x1 - frame.x0) / 100) * (shiftKey ? 5 : 1);
    const [x, y] = at[held];
    const [dx = 0, dy = 0] = way;
    move(held, [x + step * dx, y + step * dy], true);
    return true;
  };

  const said = `The plane with ${points.points.shape[0]} latent means. z at ${place(at.z)}, A at ${place(at.A)}, B at ${place(at.B)}.`;
  const found = path
    ? ` Geodesic of length ${number(path.length)}, straight line ${number(path.straight_length)}.`
    : "";
  return (
    <Drawing
      label={`${said}${found} Arrow keys move ${held}, with shift further.`}
      testid="plane-map"
      height={(width) =>
        Math.max(80, Math.min(width - MARGINS.left - MARGINS.right + MARGINS.top + MARGINS.bottom, 460))
      }
      draw={draw}
      grab={grab}
      press={press}
    />
  );
}

function cross(context: CanvasRenderingContext2D, x: number, y: number): void {
  context.beginPath();
  for (const [dx, dy] of [
    [1, 0],
    [-1, 0],
    [0, 1],
    [0, -1],
  ] as const) {
    context.moveTo(x + 3 * dx, y + 3 * dy);
    context.lineTo(x + 11 * dx, y + 11 * dy);
  }
  context.stroke();
}

function route(context: CanvasRenderingContext2D, axes: Axes, path: Tensor, ink: string, dash: number[]): void {
  const trace = (): void => {
    context.beginPath();
    for (let i = 0; i < (path.shape[0] ?? 0); i++)
      context.lineTo(axes.x(path.data[2 * i] ?? 0), axes.y(path.data[2 * i + 1] ?? 0));
    context.stroke();
  };
  context.strokeStyle = token("paper");
  context.lineWidth = 5;
  trace();
  context.strokeStyle = ink;
  context.lineWidth = 2.5;
  context.setLineDash(dash);
  trace();
  context.setLineDash([]);
}

function squares(context: CanvasRenderingContext2D, axes: Axes, drawn: Tensor): void {
  for (let i = 0; i < (drawn.shape[0] ?? 0); i++) {
    const [x, y] = [axes.x(drawn.data[2 * i] ?? 0), axes.y(drawn.data[2 * i + 1] ?? 0)];
    context.fillStyle = token("paper");
    context.fillRect(x - 5.5, y - 5.5, 11, 11);
    context.fillStyle = token("good");
    context.fillRect(x - 4, y - 4, 8, 8);
  }
}

const clouds = new WeakMap<PlanePoints, { key: string; canvas: HTMLCanvasElement }>();

/** The points, drawn once for a size and a theme. */
function cloud(
  points: PlanePoints,
  colours: Colours | null,
  axes: Axes,
  width: number,
  height: number,
): HTMLCanvasElement {
  const ratio = window.devicePixelRatio || 1;
  const key = `${width} ${height} ${ratio} ${theme()}`;
  const known = clouds.get(points);
  if (known?.key === key) return known.canvas;
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  if (!context) return canvas;
  context.scale(ratio, ratio);
  const count = points.points.shape[0] ?? 0;
  const side = count > 5000 ? 2 : count > 1000 ? 3 : 4;
  context.globalAlpha = count > 5000 ? 0.6 : 0.85;
  for (let i = 0; i < count; i++) {
    context.fillStyle = inkOf(colours, i);
    context.fillRect(
      axes.x(points.points.data[2 * i] ?? 0) - side / 2,
      axes.y(points.points.data[2 * i + 1] ?? 0) - side / 2,
      side,
      side,
    );
  }
  clouds.set(points, { key, canvas });
  return canvas;
}

function inkOf(colours: Colours | null, i: number): string {
  if (!colours) return token("accent");
  if (colours.kind === "category") return CLASSES[(colours.codes.data[i] ?? 0) % CLASSES.length] ?? "#888888";
  const share = ((colours.values.data[i] ?? Number.NaN) - colours.low) / (colours.high - colours.low || 1);
  return `rgb(${shade(share).join(" ")})`;
}

/** Which colour is which label. */
export function Legend({ colours, name }: { colours: Colours | null; name: string | null }) {
  if (!colours) return <p class="quiet small">These rows carry no label.</p>;
  if (colours.kind === "number") {
    return (
      <p class="legend small" data-testid="legend">
        {name}: {number(colours.low)} <span class="ramp" aria-hidden="true" /> {number(colours.high)}
      </p>
    );
  }
  return (
    <ul class="legend small" data-testid="legend" aria-label={`Colours: ${name}`}>
      <li class="quiet legend-name">{name}</li>
      {colours.names.slice(0, LEGEND).map((name, i) => (
        <li>
          <span class="swatch" style={{ background: CLASSES[i % CLASSES.length] }} aria-hidden="true" />
          {name}
        </li>
      ))}
      {colours.names.length > LEGEND && <li class="quiet">and {colours.names.length - LEGEND} more</li>}
    </ul>
  );
}
