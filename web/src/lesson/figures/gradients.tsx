// Figure 5: the noise ε moves z, and two estimates of one gradient beside each other.
import { useEffect, useRef, useState } from "preact/hooks";
import { number, whole, withError } from "../../core/numbers";
import { token } from "../../core/theme";
import type { Tensor } from "../../core/wire";
import { cellsOf, dragTo, Latest, ready, waiting, type Gaussian, type Loadable, type Subject } from "../desk";
import { report } from "../snapshot";
import { Axes, contour, dot, frameOf, label, line } from "./axes";
import { Drawing, type Grip, type Point } from "./drawing";
import { Histograms } from "./histograms";
import { closeUp, row } from "./inference";
import { Box, Status, Versions } from "./parts";
import { Picker } from "./picker";
import { NAMES, place } from "./plane";

export interface Estimates {
  estimates: Tensor;
  mean: number;
  se: number;
  variance: number;
}

export interface Gradients {
  row: number;
  mean: [number, number];
  sd: [number, number];
  z: [number, number];
  samples: number;
  pathwise: Estimates;
  score: Estimates;
  baseline: Estimates;
  exact: number;
  exact_error: number;
  ratio: number;
  parameter: string;
}

interface Noise {
  row: number;
  eps: Point;
  samples: number;
}

const COUNTS = [100, 1000, 4000];
const REACH = 3;

export function GradientsFigure() {
  return (
    <Box
      name="gradients"
      title="Noise through a smooth map"
      caption="Left ε with its rings at one, two and three standard deviations; right z = μ + σ ⊙ ε with q’s. Below: single-draw estimates of one derivative, all from the same draws."
    >
      {(model, shown) => <Inside model={model} shown={shown} />}
    </Box>
  );
}

function Inside({ model, shown }: { model: Subject; shown: boolean }) {
  const [eps, setEps] = useState<Point>([0.8, -0.6]);
  const [samples, setSamples] = useState(1000);
  const [now, setNow] = useState<Loadable<Gradients & { eps: Point }>>(waiting("Drawing noise …"));
  const [cells, setCells] = useState<Tensor | undefined>(undefined);
  const asked = useRef<Latest<Gradients, Noise> | null>(null);
  asked.current ??= new Latest<Gradients, Noise>(
    "gradients",
    (found, of) => setNow(ready({ ...found, eps: of.eps })),
    (said) => setNow({ state: "failed", said }),
  );
  const datum = row.value;
  useEffect(() => {
    if (!shown || datum === null) return;
    const timer = window.setTimeout(() => asked.current?.ask({ row: datum, eps, samples }), 120);
    return () => window.clearTimeout(timer);
  }, [shown, datum, samples, eps]);

  const found = now.state === "ready" ? now.value : null;
  const z: Point | null = found && [found.mean[0] + found.sd[0] * eps[0], found.mean[1] + found.sd[1] * eps[1]];
  useEffect(() => {
    if (!shown || !z) return;
    dragTo(
      "gradients",
      z,
      (_, bytes) => setCells(cellsOf(bytes, model)),
      () => setCells(undefined),
    );
  }, [shown, z?.[0], z?.[1]]);
  useEffect(() => {
    if (found) report("gradients", plain(found));
  }, [found]);

  const set = (axis: 0 | 1, value: number): void => setEps(axis === 0 ? [value, eps[1]] : [eps[0], value]);
  return (
    <>
      <Picker model={model} id="gradients" />
      {found && z ? (
        <div class={found.row === datum ? "" : "stale"}>
          <div class="noise">
            <Disc eps={eps} move={setEps} />
            <Where found={found} z={z} />
            <Versions model={model} of={[["decoded", cells]]} size={88} />
          </div>
          <div class="sliders">
            {([0, 1] as const).map((axis) => (
              <label>
                ε{"₁₂"[axis]} = {number(eps[axis])}
                <input
                  type="range"
                  min={-REACH}
                  max={REACH}
                  step={0.05}
                  value={eps[axis]}
                  data-testid={`eps-${axis + 1}`}
                  onInput={(event) => set(axis, Number(event.currentTarget.value))}
                />
              </label>
            ))}
          </div>
          <p class="reading" data-testid="gradients-z">
            z = μ + σ ⊙ ε = {place(found.mean)} + {place(found.sd)} ⊙ {place(eps)} = <b>{place(z)}</b>
          </p>
          <Histograms found={found} />
          <Table found={found} samples={samples} choose={setSamples} />
        </div>
      ) : (
        <Status of={now} />
      )}
    </>
  );
}

/** The numbers without the draws. */
function plain({ pathwise, score, baseline, ...rest }: Gradients & { eps: Point }): Record<string, unknown> {
  const summary = ({ mean, se, variance }: Estimates): object => ({ mean, se, variance });
  return { ...rest, pathwise: summary(pathwise), score: summary(score), baseline: summary(baseline) };
}

/** The plane of the noise. */
function Disc({ eps, move }: { eps: Point; move: (eps: Point) => void }) {
  const frame = { x0: -REACH, y0: -REACH, x1: REACH, y1: REACH };
  const margins = { left: 34, right: 4, top: 4, bottom: 36 };
  const axesOf = (width: number, height: number): Axes => Axes.square(frame, width, height, margins);
  const held = ([x, y]: Point): Point => {
    const tidy = (value: number): number => Math.round(Math.min(Math.max(value, -REACH), REACH) * 100) / 100;
    return [tidy(x), tidy(y)];
  };
  const draw = (context: CanvasRenderingContext2D, width: number, height: number): void => {
    const axes = axesOf(width, height);
    axes.clip(context, () => rings(context, axes, { mean: [0, 0], sd: [1, 1], angle: 0 }, token("quiet")));
    axes.draw(context, ["ε₁", "ε₂"], [4, 4]);
    axes.clip(context, () => dot(context, [axes.x(eps[0]), axes.y(eps[1])], 7, token("second")));
  };
  const grab = (at: Point, width: number, height: number): Grip | null => {
    const axes = axesOf(width, height);
    return axes.holds(at) ? { move: (to) => move(held(axes.at(to))) } : null;
  };
  const press = ({ key, shiftKey }: KeyboardEvent): boolean => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
    if (!way) return false;
    const step = shiftKey ? 0.5 : 0.1;
    move(held([eps[0] + step * (way[0] ?? 0), eps[1] + step * (way[1] ?? 0)]));
    return true;
  };
  return (
    <Drawing
      label={`The noise ε at ${place(eps)}. Arrow keys move it.`}
      testid="noise"
      height={(width) => Math.max(60, width + 2)}
      draw={draw}
      grab={grab}
      press={press}
    />
  );
}

/** Where the noise takes z. */
function Where({ found, z }: { found: Gradients; z: Point }) {
  const near = closeUp.value;
  const q: Gaussian = { mean: found.mean, sd: found.sd, angle: 0 };
  const half = 3.6 * Math.max(...found.sd);
  const frame = frameOf([found.mean[0] - half, found.mean[1] - half, found.mean[0] + half, found.mean[1] + half]);
  const draw = (context: CanvasRenderingContext2D, width: number, height: number): void => {
    const axes = Axes.square(frame, width, height, { left: 50, right: 4, top: 4, bottom: 36 });
    if (near.state === "ready") axes.shade(context, near.value.log_posterior, frameOf(near.value.frame));
    axes.clip(context, () => {
      rings(context, axes, q, token("second"));
      const [from, to]: [Point, Point] = [
        [axes.x(q.mean[0]), axes.y(q.mean[1])],
        [axes.x(z[0]), axes.y(z[1])],
      ];
      context.strokeStyle = token("ink");
      context.lineWidth = 1.5;
      line(context, from, to);
      dot(context, from, 3.5, token("ink"));
      dot(context, to, 7, token("second"));
      context.textAlign = "left";
      context.textBaseline = "bottom";
      label(context, "z", to[0] + 8, to[1] - 5);
      label(context, "μ", from[0] - 14, from[1] - 3);
    });
    axes.draw(context, NAMES, [4, 4]);
  };
  return (
    <Drawing
      label={`z at ${place(z)}, in the ellipse of q with mean ${place(q.mean)} and standard deviations ${place(q.sd)}`}
      testid="where-z"
      height={(width) => Math.max(60, width - 14)}
      draw={draw}
    />
  );
}

function rings(context: CanvasRenderingContext2D, axes: Axes, q: Gaussian, colour: string): void {
  context.strokeStyle = colour;
  context.lineWidth = 1.25;
  for (const deviations of [1, 2, 3]) {
    context.setLineDash(deviations === 1 ? [] : [4, 4]);
    contour(context, axes, q, deviations);
  }
  context.setLineDash([]);
}

const times = (ratio: number): string => (ratio < 10 ? number(ratio) : whole(ratio));

function Table({ found, samples, choose }: { found: Gradients; samples: number; choose: (samples: number) => void }) {
  const rows: [string, Estimates, string][] = [
    ["through z", found.pathwise, "pathwise"],
    ["score function", found.score, "score"],
    ["the same with a baseline", found.baseline, "score"],
  ];
  return (
    <>
      <table class="numbers wide" data-testid="gradients-numbers">
        <thead>
          <tr>
            <th scope="col">estimate</th>
            <th scope="col" class="number">
              mean
            </th>
            <th scope="col" class="number">
              variance
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map(([name, estimate, key]) => (
            <tr class={key}>
              <th scope="row">{name}</th>
              <td class="number">{withError(estimate.mean, estimate.se)}</td>
              <td class="number">{estimate.variance < 1000 ? number(estimate.variance, estimate.variance < 10 ? 3 : 1) : whole(estimate.variance)}</td>
            </tr>
          ))}
          <tr>
            <th scope="row">exact, by quadrature</th>
            <td class="number">{withError(found.exact, Math.max(found.exact_error, 1e-4))}</td>
            <td class="number" />
          </tr>
        </tbody>
      </table>
      <p class="reading" aria-live="polite" data-testid="gradients-ratio">
        The score function’s variance is <b>{times(found.ratio)}</b> times that through z, with a baseline{" "}
        <b>{times(found.baseline.variance / found.pathwise.variance)}</b> times, over{" "}
        <label class="inline">
          <select
            aria-label="How many draws"
            value={String(samples)}
            data-testid="gradients-samples"
            onChange={(event) => choose(Number(event.currentTarget.value))}
          >
            {COUNTS.map((count) => (
              <option value={String(count)}>{whole(count)}</option>
            ))}
          </select>{" "}
          draws
        </label>
        .
      </p>
      <p class="quiet small">Estimated: {found.parameter}.</p>
    </>
  );
}
