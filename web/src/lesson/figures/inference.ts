// The datum that the figures look at, and the q that two of them move: shared, so that they tell one story.
import { batch, computed, effect, signal } from "@preact/signals";
import type { Tensor } from "../../core/wire";
import { desk, failed, Latest, ready, waiting, type Gaussian, type Loadable, type Subject } from "../desk";
import { report } from "../snapshot";
import { subject } from "../state";
import { maximum } from "./axes";
import { ranges } from "./parts";

export interface Belief {
  frame: number[];
  near: number[];
  log_prior: Tensor;
  log_likelihood: Tensor;
  log_posterior: Tensor;
  log_evidence: number;
  error: number;
  quadrature: string;
  mode: [number, number];
  encoder: Gaussian;
  elbo: number;
  elbo_error: number;
  x?: Tensor;
  reconstruction?: Tensor;
}

export type Named = Gaussian & { kl: number; kl_error: number; said?: string };

export type Question = Gaussian & { row: number };

export interface Approximation {
  /** What it is the answer to. */
  of: Question;
  kl: number;
  kl_error: number;
  encoder: Named;
  best: Named;
}

export const row = signal<number | null>(null);
/** The row was changed, and what is shown is still that of the one before. */
export const stale = signal(false);
export const belief = signal<Loadable<Belief>>(waiting("Integrating over the plane …"));
/** The maps again, over a frame that the posterior and the encoder's q fill. */
export const closeUp = signal<Loadable<Belief>>(waiting("Looking closer …"));
export const q = signal<Gaussian | null>(null);
export const approximation = signal<Loadable<Approximation>>(waiting("Looking for the best Gaussian …"));
/** Rows that are offered, as pictures or numbers. */
export const offered = signal<Loadable<Tensor>>(waiting("Fetching the data …"));

const MAP = 100; // cells along an axis of a map

export const label = computed(() => {
  const model = subject.value;
  const found = model.state === "ready" ? model.value.rows.find(([each]) => each === row.value)?.[1] : null;
  return found === null || found === undefined ? "" : String(found);
});

let begun: Subject | null = null;
effect(() => {
  const model = subject.value;
  if (model.state !== "ready" || model.value === begun) return;
  begun = model.value;
  void offer(model.value);
});

async function offer(model: Subject): Promise<void> {
  try {
    const rows = model.rows.map(([each]) => each);
    const found = await desk().ask<{ tiles?: Tensor; values?: Tensor }>("thumbnails", { rows });
    const cells = found.tiles ?? found.values;
    if (!cells) throw new Error("The server sent no data.");
    if (found.values) measure(found.values);
    offered.value = ready(cells);
  } catch (error) {
    offered.value = failed(error);
  }
  const first = model.rows[0]?.[0];
  if (first !== undefined) choose(first);
  else belief.value = failed(new Error("This run keeps no rows that could be shown."));
}

function measure(values: Tensor): void {
  const [rows = 0, features = 0] = values.shape;
  for (let i = 0; i < features; i++) {
    const column = Array.from({ length: rows }, (_, at) => values.data[at * features + i] ?? Number.NaN).filter(
      Number.isFinite,
    );
    ranges.low[i] = Math.min(...column);
    ranges.high[i] = Math.max(...column);
  }
}

/** Look at another row. */
export function choose(next: number): void {
  row.value = next;
  asked.forget();
  if (belief.value.state === "ready") stale.value = true;
  else belief.value = waiting("Integrating over the plane …");
  void look(next);
}

async function look(at: number): Promise<void> {
  try {
    const found = await desk().ask<Belief>("belief", { row: at, side: MAP });
    const near = await desk().ask<Belief>("belief", { row: at, side: MAP, frame: found.near });
    const close = await desk().ask<Belief>("belief", { row: at, side: MAP, frame: around(near) });
    if (row.value !== at) return;
    batch(() => {
      stale.value = false;
      belief.value = ready(found);
      closeUp.value = ready(close);
      approximation.value = waiting("Looking for the best Gaussian …");
      move(displaced(found.encoder));
    });
    report("belief", {
      row: at,
      log_evidence: found.log_evidence,
      error: found.error,
      elbo: found.elbo,
      mode: found.mode,
      frame: found.frame,
    });
  } catch (error) {
    if (row.value !== at) return;
    batch(() => {
      stale.value = false;
      belief.value = closeUp.value = failed(error);
    });
  }
}

const DEEP = 8; // nats below the highest point, about 4 standard deviations
const ROOM = 0.35; // of the side, left around what is to be seen

/** A square around what the posterior fills and the encoder's q. */
function around({ frame: [x0 = 0, y0 = 0, x1 = 1, y1 = 1], log_posterior: logs, encoder }: Belief): number[] {
  const [side = 1] = logs.shape;
  const most = maximum(logs);
  const reach = 3 * Math.max(...encoder.sd);
  const low = [encoder.mean[0] - reach, encoder.mean[1] - reach] as [number, number];
  const high = [encoder.mean[0] + reach, encoder.mean[1] + reach] as [number, number];
  for (const [i, value] of logs.data.entries()) {
    if (value < most - DEEP) continue;
    const at = [
      x0 + (((i % side) + 0.5) / side) * (x1 - x0),
      y0 + ((Math.floor(i / side) + 0.5) / side) * (y1 - y0),
    ] as const;
    for (const axis of [0, 1] as const) {
      low[axis] = Math.min(low[axis], at[axis]);
      high[axis] = Math.max(high[axis], at[axis]);
    }
  }
  const half = (0.5 + ROOM) * Math.max(high[0] - low[0], high[1] - low[1]);
  const middle = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2] as const;
  return [middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half];
}

/** Where the reader finds q: beside the encoder's, so that there is something to mend. */
function displaced({ mean, sd, angle }: Gaussian): Gaussian {
  const along = [1.2 * sd[0] * Math.cos(angle), 1.2 * sd[0] * Math.sin(angle)] as const;
  return { mean: [mean[0] + along[0], mean[1] + along[1]], sd: [1.3 * sd[0], 1.3 * sd[1]], angle };
}

const asked = new Latest<Omit<Approximation, "of">, Question>(
  "approximation",
  (found, of) => {
    approximation.value = ready({ ...found, of });
  },
  (message) => {
    approximation.value = { state: "failed", said: message };
  },
);

effect(() => {
  const [found, near] = [approximation.value, closeUp.value];
  if (found.state !== "ready" || near.state !== "ready") return;
  const { of, ...numbers } = found.value;
  report("approximation", { ...of, ...numbers, frame: near.value.frame });
});

/** Another q; its KL follows. */
export function move(next: Gaussian): void {
  q.value = next;
  if (row.value !== null) asked.ask({ row: row.value, mean: next.mean, sd: next.sd, angle: next.angle });
}

export const retry = (): void => {
  if (row.value !== null) choose(row.value);
};
