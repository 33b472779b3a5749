// Small pieces that several panels show: pictures, rows of numbers, strips, states of work.
import type { ComponentChild } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { number } from "../core/numbers";
import { paint } from "../core/pictures";
import type { Tensor } from "../core/wire";
import type { Station } from "./station";
import type { Info, Thumbnails } from "./types";
import { piece } from "./station";
import type { Work } from "./work";

/** A picture of bytes (h, w, c). */
export function Picture({ cells, shape, size, label }: { cells: ArrayLike<number>; shape: number[]; size?: number; label: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (canvas.current) paint(canvas.current, cells as Uint8Array, shape);
  }, [cells, shape]);
  const [height = 1, width = 1] = shape;
  const style = size ? { width: `${size}px`, height: `${Math.round((size * height) / width)}px` } : { width: "100%", aspectRatio: `${width} / ${height}` };
  return <canvas ref={canvas} class="picture" style={style} role="img" aria-label={label} />;
}

/** A row's thumbnail, or its first values in words. */
export function Thumb({ station, row, size = 48 }: { station: Station; row: number; size?: number }) {
  const info = station.info.value;
  const cells = station.thumbs.value.get(row);
  if (!info) return null;
  if (!cells) return <span class="thumb wait" style={{ width: `${size}px`, height: `${size}px` }} aria-hidden="true" />;
  if (info.kind === "image" && info.shape) return <Picture cells={cells} shape={info.shape} size={size} label={`row ${row}`} />;
  return <span class="thumb words">{brief(cells, info)}</span>;
}

export const brief = (cells: ArrayLike<number>, { features }: Info): string =>
  Array.from(cells)
    .slice(0, 3)
    .map((value, k) => `${features?.[k] ?? `x${k}`} ${short(value)}`)
    .join(", ") + (cells.length > 3 ? " …" : "");

/** A number whose error is not known: fewer digits where it is large. */
export const rounded = (value: number): string => number(value, Math.abs(value) < 10 ? 3 : Math.abs(value) < 1000 ? 2 : 0);

export const short = (value: number): string => (Number.isFinite(value) ? String(Number(value.toPrecision(4))).replace("-", "−") : "missing");

export interface Column {
  name: string;
  values: ArrayLike<number>;
  missing?: boolean[] | null;
}

/** Features by columns of numbers. */
export function Values({ names, columns, label }: { names: string[]; columns: Column[]; label: string }) {
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={label}>
      <table class="values">
        <thead>
          <tr>
            <th scope="col">cell</th>
            {columns.map(({ name }) => (
              <th scope="col" class="number">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {names.map((name, k) => (
            <tr>
              <th scope="row">{name}</th>
              {columns.map(({ values, missing }) => (
                <td class="number">{missing?.[k] ? <em class="quiet">missing</em> : short(values[k] ?? NaN)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const ACROSS = 11; // pictures beside one another

/** Pictures in a row, each with a caption, or one small chart per feature. */
export function Strip({ info, steps, captions, label, testid }: { info: Info; steps: Thumbnails; captions: string[]; label: string; testid?: string }) {
  if (steps.tiles && info.shape) {
    const { tiles } = steps;
    return (
      <div class="tiles" style={{ gridTemplateColumns: `repeat(${Math.min(captions.length, ACROSS)}, minmax(0, 1fr))` }} role="group" aria-label={label} data-testid={testid}>
        {captions.map((caption, k) => (
          <figure>
            <Picture cells={piece(steps, k)} shape={tiles.shape.slice(-3)} label={`${label}, ${caption}`} />
            <figcaption>{caption}</figcaption>
          </figure>
        ))}
      </div>
    );
  }
  if (!steps.values) return null;
  return <Charts names={info.features ?? []} lines={[{ name: label, values: steps.values, style: "first" }]} testid={testid} />;
}

export interface Line {
  name: string;
  values: Tensor;
  style: "first" | "second";
}

const CHARTS = 24; // features with a chart of their own

/** One small chart per feature: how it runs along the steps. */
export function Charts({ names, lines, testid }: { names: string[]; lines: Line[]; testid?: string }) {
  const size = lines[0]?.values.shape[1] ?? names.length;
  return (
    <div data-testid={testid}>
      <div class="charts">
        {names.slice(0, CHARTS).map((name, k) => (
          <SmallChart name={name} lines={lines.map(({ values, style, name: of }) => ({ of, style, at: every(values, k, size) }))} />
        ))}
      </div>
      {names.length > CHARTS && <p class="quiet">The first {CHARTS} of {names.length} cells.</p>}
    </div>
  );
}

const every = ({ data, shape }: Tensor, k: number, size: number): number[] => Array.from({ length: shape[0] ?? 0 }, (_, step) => data[step * size + k] ?? NaN);

function SmallChart({ name, lines }: { name: string; lines: { of: string; style: string; at: number[] }[] }) {
  const all = lines.flatMap(({ at }) => at).filter(Number.isFinite);
  const low = Math.min(...all);
  const high = Math.max(...all);
  const y = (value: number) => 34 - (30 * (value - low)) / (high - low || 1);
  const said = lines.map(({ of, at }) => `${of} from ${short(at[0] ?? NaN)} to ${short(at.at(-1) ?? NaN)}`).join("; ");
  return (
    <figure class="chart">
      <figcaption title={name}>{name}</figcaption>
      <svg viewBox="0 0 120 38" role="img" aria-label={`${name}: ${said}`} preserveAspectRatio="none">
        {lines.map(({ at, style }) => (
          <polyline class={style} points={at.map((value, step) => `${(120 * step) / Math.max(at.length - 1, 1)},${y(value)}`).join(" ")} />
        ))}
      </svg>
      <span class="ends quiet">
        {short(low)} … {short(high)}
      </span>
    </figure>
  );
}

/** What a piece of work is about, while it has no result. */
export function Status({ work, wait, idle }: { work: Work<unknown>; wait: string; idle?: ComponentChild }) {
  const state = work.state.value;
  if (state === "running" && work.value.value === null) return <p class="quiet busy">{wait}</p>;
  if (state === "failed") return <p class="notice warn">{work.said.value}</p>;
  if (state === "cancelled") return <p class="notice">Cancelled.</p>;
  return state === "idle" && idle ? <p class="quiet">{idle}</p> : null;
}

export const coordinates = (z: ArrayLike<number>): string => `(${Array.from(z, (value) => number(value)).join(", ")})`;

/** How far off the data a point lies, in words, with a warning beyond 1. */
export function Far({ far }: { far: number | null }) {
  if (far === null || !Number.isFinite(far)) return null;
  return far > 1 ? (
    <p class="notice warn" data-testid="off-data">
      Off the data: the nearest row is {number(far, 1)} times as far away as 99 % of rows have theirs. What is decoded here is an extrapolation.
    </p>
  ) : (
    <p class="quiet small" data-testid="on-data">
      On the data: {number(far)} of the distance within which 99 % of rows have their nearest neighbour.
    </p>
  );
}

/** What a line or a dot of a chart stands for. */
export const Key = ({ kind, words, dot = false }: { kind: string; words: string; dot?: boolean }) => (
  <span class="item">
    <span class={`${dot ? "dot" : "stroke"} ${kind}`} /> {words}
  </span>
);
