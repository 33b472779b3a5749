// What all figures share: their box, their caption, their states in words, and how a row of data is shown.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { number } from "../../core/numbers";
import { paint, tile } from "../../core/pictures";
import type { Tensor } from "../../core/wire";
import type { Loadable, Subject } from "../desk";
import { subject } from "../state";

interface BoxProps {
  name: string;
  title: string;
  caption: ComponentChildren;
  children: (subject: Subject, shown: boolean) => ComponentChildren;
  /** What it is computed from, where that is not the subject alone. */
  source?: string;
}

/** A figure: it begins to work when it comes near the screen, and says what it waits for. */
export function Box({ name, title, caption, children, source }: BoxProps) {
  const outer = useRef<HTMLElement>(null);
  const [seen, setSeen] = useState(false);
  const [shown, setShown] = useState(false);
  useEffect(() => {
    if (!outer.current) return;
    const watched = new IntersectionObserver(
      (entries) => {
        const now = entries.some((entry) => entry.isIntersecting);
        setShown(now);
        if (now) setSeen(true);
      },
      { rootMargin: "25% 0px" },
    );
    watched.observe(outer.current);
    return () => watched.disconnect();
  }, []);
  const model = subject.value;
  return (
    <figure class="figure" ref={outer} data-testid={`figure-${name}`} aria-labelledby={`figure-title-${name}`}>
      <h3 id={`figure-title-${name}`}>{title}</h3>
      {model.state === "ready" && seen ? (
        children(model.value, shown)
      ) : (
        <Status of={model.state === "ready" ? { state: "waiting", said: "Drawing …" } : model} />
      )}
      <figcaption>
        {caption}
        {model.state === "ready" && <span class="source"> {source ?? computedFrom(model.value)}</span>}
      </figcaption>
    </figure>
  );
}

/** Which model the numbers are of. */
export function computedFrom(model: Subject): string {
  if (!model.run) return "Computed from the model of digits that comes with vaelid.";
  const name = `the run ${model.run.split(/[\\/]/).pop()}`;
  return model.companion
    ? `Computed from a companion with two latents, trained on the data of ${name}.`
    : `Computed from ${name}.`;
}

/** Waiting and failure in words. */
export function Status({ of, retry }: { of: Loadable<unknown>; retry?: () => void }) {
  if (of.state === "ready") return null;
  return (
    <p class={of.state === "failed" ? "notice warn" : "waiting"} role="status">
      {of.said} {of.state === "failed" && retry && <button onClick={retry}>Try again</button>}
    </p>
  );
}

/** One picture; without a label it only decorates what has one. */
export function Picture({
  cells,
  shape,
  label,
  size,
}: {
  cells: Uint8Array;
  shape: number[];
  label: string;
  size?: number;
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (canvas.current) paint(canvas.current, cells, shape);
  }, [cells, shape]);
  const style = size ? { width: `${size}px`, height: `${(size * (shape[0] ?? 1)) / (shape[1] ?? 1)}px` } : undefined;
  const named = label ? { role: "img" as const, "aria-label": label } : { "aria-hidden": true };
  return <canvas class="picture" ref={canvas} {...named} style={style} />;
}

const ROWS = 14; // cells of a table's row that are listed

/** One datum in one or more versions: pictures beside one another, or a small table with bars. */
export function Versions({
  of,
  model,
  size = 84,
}: {
  of: [string, Tensor | undefined][];
  model: Subject;
  size?: number;
}) {
  const shape = model.shape;
  if (model.kind === "image" && shape) {
    return (
      <div class="versions">
        {of.map(([name, cells]) => (
          <figure class="version">
            {cells ? (
              <Picture cells={cells.data as Uint8Array} shape={shape} label={name} size={size} />
            ) : (
              <span class="absent" style={{ width: `${size}px`, height: `${size}px` }} />
            )}
            <span>{name}</span>
          </figure>
        ))}
      </div>
    );
  }
  const features = model.features ?? [];
  const shownFeatures = features.slice(0, ROWS);
  return (
    <div class="versions table" tabIndex={0} role="group" aria-label={of.map(([name]) => name).join(" and ")}>
      <table class="cells">
        <thead>
          <tr>
            <th scope="col">feature</th>
            {of.map(([name]) => (
              <th scope="col" class="number">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {shownFeatures.map((feature, i) => (
            <tr>
              <th scope="row">{feature}</th>
              {of.map(([, cells]) => {
                const value = cells?.data[i];
                return (
                  <td class="number">
                    <span class="cellbar" style={{ width: `${100 * share(i, value)}%` }} />
                    <span>{value === undefined ? "…" : short(value)}</span>
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
      {features.length > ROWS && <p class="quiet">and {features.length - ROWS} more features</p>}
    </div>
  );
}

/** Low and high ends of each feature over the rows that are offered; bars are drawn between them. */
export const ranges: { low: number[]; high: number[] } = { low: [], high: [] };

export function share(feature: number, value: number | undefined): number {
  const [low, high] = [ranges.low[feature], ranges.high[feature]];
  if (value === undefined || low === undefined || high === undefined || !(high > low)) return 0;
  return Math.min(1, Math.max(0, (value - low) / (high - low)));
}

export const short = (value: number): string =>
  Number.isFinite(value) ? String(Number(value.toPrecision(3))).replace("-", "−") : number(value);

/** A row of small pictures, or of small bar charts for a table. */
export function Strip({
  cells,
  model,
  label,
  size = 40,
}: {
  cells: Tensor;
  model: Subject;
  label: string;
  size?: number;
}) {
  const count = cells.shape[0] ?? 0;
  const across = { gridTemplateColumns: `repeat(${count}, minmax(0, ${size}px))` };
  if (model.kind === "image") {
    return (
      <div class="strip" role="img" aria-label={label} style={across}>
        {Array.from({ length: count }, (_, i) => (
          <Tile tiles={cells} i={i} />
        ))}
      </div>
    );
  }
  return (
    <div class="strip" role="img" aria-label={label} style={across}>
      {Array.from({ length: count }, (_, i) => (
        <Bars values={rowOf(cells, i)} />
      ))}
    </div>
  );
}

export const rowOf = (cells: Tensor, i: number): Tensor => {
  const width = cells.shape.slice(1).reduce((product, side) => product * side, 1);
  return { data: cells.data.slice(i * width, (i + 1) * width), shape: cells.shape.slice(1) };
};

function Tile({ tiles, i }: { tiles: Tensor; i: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const one = tile(tiles, i);
    if (canvas.current) paint(canvas.current, one.cells, one.shape);
  }, [tiles, i]);
  return <canvas class="picture" ref={canvas} aria-hidden="true" />;
}

/** The cells of a table's row as bars between their least and largest values. */
export function Bars({ values, size }: { values: Tensor; size?: number }) {
  const shown = Math.min(values.data.length, ROWS);
  return (
    <svg
      class="bars"
      viewBox={`0 0 ${shown} 10`}
      preserveAspectRatio="none"
      width={size}
      height={size}
      aria-hidden="true"
    >
      {Array.from({ length: shown }, (_, i) => {
        const tall = 0.4 + 9.6 * share(i, values.data[i]);
        return <rect x={i + 0.1} y={10 - tall} width={0.8} height={tall} />;
      })}
    </svg>
  );
}
