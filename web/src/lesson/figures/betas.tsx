// Figure 4: rate against distortion, one small model for each β.
import { useEffect, useRef, useState } from "preact/hooks";
import { number, withError } from "../../core/numbers";
import { token } from "../../core/theme";
import type { Job, Tensor } from "../../core/wire";
import { desk, wasCancelled, words, type Subject } from "../desk";
import { report } from "../snapshot";
import { Axes, dot, label, line } from "./axes";
import { Drawing, type Point as Pixel } from "./drawing";
import { Box, Strip } from "./parts";

interface Shown {
  tiles?: Tensor;
  values?: Tensor;
}

export interface BetaPoint {
  beta: number;
  rate: number;
  rate_se: number;
  distortion: number;
  distortion_se: number;
  elbo: number;
  elbo_se?: number;
  active: number;
  seconds: number;
  reconstructions: Shown;
  samples: Shown;
}

interface Result {
  points: BetaPoint[];
  originals: Shown;
  said: string;
}

type Partial = { point: BetaPoint } | { beta: number; epoch: number; epochs: number; elbo: number | null };

export function BetasFigure() {
  const [source, setSource] = useState("Computed from companions, one for each β, trained on the same data.");
  return (
    <Box
      name="betas"
      title="Rate against distortion"
      source={source}
      caption="Rate is the mean KL(q ‖ p(z)), distortion the mean of −log p(x|z), with standard errors. Along a faint line the ELBO is the same; down and left it is better."
    >
      {(model) => <Inside model={model} named={setSource} />}
    </Box>
  );
}

function Inside({ model, named }: { model: Subject; named: (said: string) => void }) {
  const [points, setPoints] = useState<BetaPoint[]>([]);
  const [originals, setOriginals] = useState<Shown | null>(null);
  const [said, setSaid] = useState("Waiting for the first companion …");
  const [trouble, setTrouble] = useState("");
  const [running, setRunning] = useState(false);
  const [at, setAt] = useState<number | null>(null);
  const job = useRef<Job<Result> | null>(null);
  const picked = at ?? (points.length ? nearestOne(points) : null);

  const start = (): void => {
    setTrouble("");
    setRunning(true);
    setPoints([]);
    const mine = desk().run<Result>("betas", {}, (answer) => {
      const partial = answer as Partial;
      if ("point" in partial) setPoints((before) => [...before, partial.point].sort((a, b) => a.beta - b.beta));
      else setSaid(`Training the companion with β = ${partial.beta}: epoch ${partial.epoch} of ${partial.epochs} …`);
    });
    job.current = mine;
    mine.result
      .then((found) => {
        setPoints([...found.points].sort((a, b) => a.beta - b.beta));
        setOriginals(found.originals);
        setSaid("");
        named(`Computed from ${found.said}.`);
      })
      .catch((error: unknown) => setTrouble(wasCancelled(error) ? "Stopped." : words(error)))
      .finally(() => setRunning(false));
  };
  useEffect(() => {
    start();
    return () => job.current?.cancel();
  }, []);
  useEffect(() => {
    report("betas", {
      running,
      picked,
      points: points.map(({ reconstructions: _, samples: __, ...numbers }) => numbers),
    });
  }, [points, running, picked]);

  const chosen = points.find(({ beta }) => beta === picked);
  return (
    <>
      {points.length > 0 ? (
        <Curve points={points} picked={picked} pick={setAt} />
      ) : (
        !trouble && (
          <p class="waiting tall" role="status">
            {said}
          </p>
        )
      )}
      {points.length > 0 && (
        <div
          class="radios"
          role="radiogroup"
          aria-label="β of the model that is shown"
          onKeyDown={(event) => along(event, points, picked, setAt)}
        >
          {points.map(({ beta }) => (
            <button
              role="radio"
              aria-checked={beta === picked}
              tabIndex={beta === picked ? 0 : -1}
              data-testid={`beta-${beta}`}
              onClick={() => setAt(beta)}
            >
              β = {beta}
            </button>
          ))}
        </div>
      )}
      {running && (
        <p class="quiet" role="status" data-testid="betas-said">
          {points.length > 0 && said}{" "}
          <button onClick={() => job.current?.cancel()} data-testid="betas-cancel">
            Stop
          </button>
        </p>
      )}
      {trouble && (
        <p class="notice warn" role="status">
          {trouble} <button onClick={start}>Train them</button>
        </p>
      )}
      {chosen && <Chosen point={chosen} originals={originals} model={model} />}
    </>
  );
}

const nearestOne = (points: BetaPoint[]): number =>
  points.reduce(
    (best, { beta }) => (Math.abs(Math.log(beta)) < Math.abs(Math.log(best)) ? beta : best),
    points[0]?.beta ?? 1,
  );

function along(event: KeyboardEvent, points: BetaPoint[], picked: number | null, pick: (beta: number) => void): void {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const here = points.findIndex(({ beta }) => beta === picked);
  const to = (here + step + points.length) % points.length;
  const next = points[to];
  if (!next) return;
  pick(next.beta);
  const all = (event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>('[role="radio"]');
  all[to]?.focus({ preventScroll: true });
}

function Chosen({ point, originals, model }: { point: BetaPoint; originals: Shown | null; model: Subject }) {
  const rows: [string, Shown | null][] = [
    ["held out", originals],
    ["reconstructed", point.reconstructions],
    ["drawn from the prior", point.samples],
  ];
  return (
    <>
      <p class="reading" data-testid="betas-reading" aria-live="polite">
        β = {point.beta}: rate <b>{withError(point.rate, point.rate_se)}</b>, distortion{" "}
        <b>{withError(point.distortion, point.distortion_se)}</b>, ELBO{" "}
        <b>{withError(point.elbo, point.elbo_se ?? null)}</b> nats; {point.active} of 2 latents active.
      </p>
      <div class="strips">
        {rows.map(([name, shown]) => {
          const cells = shown?.tiles ?? shown?.values;
          return (
            <>
              <span class="strip-name">{name}</span>
              {cells ? (
                <Strip cells={cells} model={model} label={`${cells.shape[0]} ${name}, β = ${point.beta}`} size={44} />
              ) : (
                <span class="quiet">with the last companion</span>
              )}
            </>
          );
        })}
      </div>
    </>
  );
}

function Curve({ points, picked, pick }: { points: BetaPoint[]; picked: number | null; pick: (beta: number) => void }) {
  const rates = spread(points.map(({ rate, rate_se }) => [rate - 2 * rate_se, rate + 2 * rate_se]));
  const distortions = spread(
    points.map(({ distortion, distortion_se }) => [distortion - 2 * distortion_se, distortion + 2 * distortion_se]),
  );
  const frame = { x0: Math.min(0, rates[0]), x1: rates[1], y0: distortions[0], y1: distortions[1] };
  const place = (width: number, height: number): Axes =>
    new Axes(frame, width, height, { left: 52, right: 12, top: 12, bottom: 38 });
  const at = (axes: Axes, point: BetaPoint): Pixel => [axes.x(point.rate), axes.y(point.distortion)];

  const draw = (context: CanvasRenderingContext2D, width: number, height: number): void => {
    const axes = place(width, height);
    axes.clip(context, () => {
      context.strokeStyle = token("line");
      context.lineWidth = 1;
      const step = (frame.y1 - frame.y0) / 5;
      for (let sum = frame.x0 + frame.y0; sum < frame.x1 + frame.y1; sum += step) {
        line(context, [axes.x(frame.x0), axes.y(sum - frame.x0)], [axes.x(frame.x1), axes.y(sum - frame.x1)]);
      }
      context.strokeStyle = token("accent");
      context.lineWidth = 1.75;
      context.beginPath();
      for (const each of [...points].sort((a, b) => a.rate - b.rate)) context.lineTo(...at(axes, each));
      context.stroke();
    });
    for (const each of points) {
      const [x, y] = at(axes, each);
      context.strokeStyle = token("ink");
      context.lineWidth = 1.25;
      line(context, [axes.x(each.rate - each.rate_se), y], [axes.x(each.rate + each.rate_se), y]);
      line(
        context,
        [x, axes.y(each.distortion - each.distortion_se)],
        [x, axes.y(each.distortion + each.distortion_se)],
      );
      dot(context, [x, y], each.beta === picked ? 7 : 5, each.beta === picked ? token("second") : token("accent"));
    }
    axes.draw(context, ["rate, nats", "distortion, nats"]);
    context.textBaseline = "bottom";
    names(
      context,
      axes,
      points.map((each) => ({ words: `β ${each.beta}`, at: at(axes, each), first: each.beta === picked })),
    );
  };

  const closest = (to: Pixel, width: number, height: number): number | null => {
    const axes = place(width, height);
    const found = points
      .map((each) => ({ beta: each.beta, distance: Math.hypot(at(axes, each)[0] - to[0], at(axes, each)[1] - to[1]) }))
      .sort((a, b) => a.distance - b.distance)[0];
    return found && found.distance < 28 ? found.beta : null;
  };
  const to = (where: Pixel, width: number, height: number): void => {
    const found = closest(where, width, height);
    if (found !== null && found !== picked) pick(found);
  };
  const said = points
    .map(({ beta, rate, distortion }) => `β ${beta}: rate ${number(rate)}, distortion ${number(distortion)}`)
    .join("; ");
  return (
    <Drawing
      label={`Rate against distortion in nats. ${said}. Shown below: β ${picked}.`}
      testid="betas-curve"
      height={(width) => Math.min(320, Math.max(220, width * 0.6))}
      draw={draw}
      hover={(where, width, height) => where && to(where, width, height)}
    />
  );
}

/** Names beside points where there is room for them, that of the chosen point before all others. */
function names(
  context: CanvasRenderingContext2D,
  axes: Axes,
  wanted: { words: string; at: Pixel; first: boolean }[],
): void {
  const taken: [number, number, number, number][] = wanted.map(({ at: [x, y] }) => [x - 6, y - 6, x + 6, y + 6]);
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (const { words, at } of [...wanted].sort((a, b) => Number(b.first) - Number(a.first))) {
    const width = context.measureText(words).width;
    const [x, y] = at;
    const places: Pixel[] = [
      [x + 9, y - 11],
      [x - 9 - width, y + 12],
      [x - 9 - width, y - 11],
      [x + 9, y + 12],
      [x - width / 2, y - 24],
      [x - width / 2, y + 24],
    ];
    for (const [left, middle] of places) {
      const box: [number, number, number, number] = [left - 1, middle - 8, left + width + 1, middle + 8];
      const within = axes.holds([box[0], box[1]]) && axes.holds([box[2], box[3]]);
      if (
        !within ||
        taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])
      )
        continue;
      taken.push(box);
      label(context, words, left, middle);
      break;
    }
  }
}

/** Ends that leave some room. */
function spread(ends: number[][]): [number, number] {
  const low = Math.min(...ends.map(([from = 0]) => from));
  const high = Math.max(...ends.map(([, until = 0]) => until));
  const room = 0.12 * (high - low || 1);
  return [low - room, high + room];
}
