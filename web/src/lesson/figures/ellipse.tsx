// The true posterior with a normal q over it that can be dragged, resized and turned.
import type { Tensor } from "../../core/wire";
import { token } from "../../core/theme";
import type { Gaussian } from "../desk";
import { Axes, contour, dot, frameOf, label, line } from "./axes";
import { Drawing, type Grip, type Point } from "./drawing";
import { inWords, NAMES } from "./plane";

interface Props {
  frame: number[];
  posterior: Tensor;
  q: Gaussian;
  move: (q: Gaussian) => void;
  testid: string;
  said: string;
  /** Height of the width. */
  height?: (width: number) => number;
}

const REACH = 2; // standard deviations at which the handles sit
const ARM = 24; // pixels from there to the handle that turns
const NEAR = 16; // pixels within which a handle is taken
const TURN = Math.PI / 36;
const GROW = 1.08;

type Handle = "centre" | "first" | "second" | "turn";

export function EllipsePlane({
  frame,
  posterior,
  q,
  move,
  testid,
  said,
  height = (width) => Math.min(width * 0.85, 400),
}: Props) {
  const over = frameOf(frame);
  const place = (width: number, tall: number): Axes => Axes.square(over, width, tall);

  const draw = (context: CanvasRenderingContext2D, width: number, tall: number): void => {
    const axes = place(width, tall);
    axes.shade(context, posterior, over);
    axes.clip(context, () => {
      context.strokeStyle = token("second");
      context.lineWidth = 2.25;
      contour(context, axes, q, 1);
      context.setLineDash([5, 4]);
      contour(context, axes, q, 2);
      context.setLineDash([]);
      const at = handles(axes, q);
      context.lineWidth = 1.25;
      line(context, at.centre, at.turn);
      for (const [handle, each] of Object.entries(at))
        dot(
          context,
          each,
          handle === "centre" ? 7 : 5.5,
          handle === "turn" ? token("paper") : token("second"),
          handle === "turn" ? token("second") : token("paper"),
        );
      context.textAlign = "left";
      context.textBaseline = "middle";
      label(context, "q", at.centre[0] + 11, at.centre[1] - 11, token("second"));
    });
    axes.draw(context, NAMES);
  };

  const grab = (at: Point, width: number, tall: number): Grip | null => {
    const axes = place(width, tall);
    const handle = taken(handles(axes, q), at);
    if (!handle) return inside(axes, q, at) ? dragging(axes, at) : null;
    return { move: (to) => move(changed(handle, axes, q, to, over)) };
  };

  const dragging = (axes: Axes, from: Point): Grip => {
    const [x, y] = axes.at(from);
    const offset = [q.mean[0] - x, q.mean[1] - y] as const;
    return {
      move: (to) => {
        const [cx, cy] = axes.at(to);
        move(held({ ...q, mean: [cx + offset[0], cy + offset[1]] }, over));
      },
    };
  };

  const press = (event: KeyboardEvent): boolean => {
    const step = (over.x1 - over.x0) / 100;
    const next = keyed(q, event, step);
    if (next) move(held(next, over));
    return next !== null;
  };

  return (
    <Drawing
      label={`The true posterior as a shaded map, and q as an ellipse: ${inWords(q)}. ${said} Arrow keys move q, with shift they resize it, r and shift r turn it.`}
      testid={testid}
      height={height}
      draw={draw}
      grab={grab}
      press={press}
    />
  );
}

function handles(axes: Axes, { mean, sd, angle }: Gaussian): Record<Handle, Point> {
  const [cx, cy] = [axes.x(mean[0]), axes.y(mean[1])];
  const along = (length: number, turn: number): Point => [cx + length * Math.cos(turn), cy - length * Math.sin(turn)];
  const first = REACH * sd[0] * axes.scale;
  return {
    centre: [cx, cy],
    first: along(first, angle),
    second: along(REACH * sd[1] * axes.scale, angle + Math.PI / 2),
    turn: along(axes.holds(along(first + ARM, angle)) ? first + ARM : -first - ARM, angle),
  };
}

function taken(all: Record<Handle, Point>, [px, py]: Point): Handle | null {
  let best: Handle | null = null;
  let nearest = NEAR;
  for (const [handle, [x, y]] of Object.entries(all) as [Handle, Point][]) {
    const distance = Math.hypot(px - x, py - y);
    if (distance <= nearest) [best, nearest] = [handle, distance];
  }
  return best;
}

function inside(axes: Axes, { mean, sd, angle }: Gaussian, at: Point): boolean {
  const [x, y] = axes.at(at);
  const [dx, dy] = [x - mean[0], y - mean[1]];
  const u = (dx * Math.cos(angle) + dy * Math.sin(angle)) / sd[0];
  const v = (dy * Math.cos(angle) - dx * Math.sin(angle)) / sd[1];
  return Math.hypot(u, v) < REACH;
}

function changed(handle: Handle, axes: Axes, q: Gaussian, to: Point, over: ReturnType<typeof frameOf>): Gaussian {
  const [x, y] = axes.at(to);
  if (handle === "centre") return held({ ...q, mean: [x, y] }, over);
  const [dx, dy] = [x - q.mean[0], y - q.mean[1]];
  if (handle === "turn") {
    const angle = Math.atan2(dy, dx);
    return { ...q, angle: Math.cos(angle - q.angle) < 0 ? wrapped(angle + Math.PI) : angle }; // it may sit at either end
  }
  const axis = handle === "first" ? q.angle : q.angle + Math.PI / 2;
  const length = Math.max(dx * Math.cos(axis) + dy * Math.sin(axis), 0) / REACH;
  return held({ ...q, sd: handle === "first" ? [length, q.sd[1]] : [q.sd[0], length] }, over);
}

/** q held within the frame, and wide enough to be seen. */
export function held(q: Gaussian, { x0, y0, x1, y1 }: ReturnType<typeof frameOf>): Gaussian {
  const [least, most] = [(x1 - x0) / 80, (x1 - x0) / 3];
  const within = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);
  return {
    mean: [within(q.mean[0], x0, x1), within(q.mean[1], y0, y1)],
    sd: [within(q.sd[0], least, most), within(q.sd[1], least, most)],
    angle: q.angle,
  };
}

function keyed(q: Gaussian, { key, shiftKey }: KeyboardEvent, step: number): Gaussian | null {
  if (key === "r" || key === "R") return { ...q, angle: wrapped(q.angle + (shiftKey ? -TURN : TURN)) };
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
  if (!way) return null;
  const [x = 0, y = 0] = way;
  if (shiftKey) return { ...q, sd: [q.sd[0] * GROW ** x, q.sd[1] * GROW ** y] };
  return { ...q, mean: [q.mean[0] + x * step, q.mean[1] + y * step] };
}

const wrapped = (angle: number): number => Math.atan2(Math.sin(angle), Math.cos(angle));
