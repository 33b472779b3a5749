// What the desk answers, by request. The names are those of src/vaelid/studio.
import type { Tensor } from "../core/wire";

export interface RunEntry {
  index: number;
  name: string;
  path: string;
  ok: boolean;
  error: string;
}

export interface PlaneKey {
  kind: "dims" | "pca";
  i: number;
  j: number;
}

export interface PlaneChoice extends PlaneKey {
  name: string;
  axes: [string, string];
  share: number[] | null;
  slice: boolean;
}

export interface Info {
  index: number;
  name: string;
  path: string;
  kind: "image" | "table";
  shape: number[] | null;
  features: string[] | null;
  latent: number;
  rows: number;
  shown: number;
  sample: string | null;
  /** Why there are no rows; empty where there are. */
  gone: string;
  likelihood: string;
  prior: string;
  posterior: string;
  expected: string;
  context: string;
  columns: { name: string; kind: "category" | "number" }[];
  active: boolean[];
  kl: number[] | null;
  label: string | null;
  planes: PlaneChoice[];
}

export interface PlaneAnswer {
  axes: [string, string];
  slice: boolean;
  said: string;
  frame: [number, number, number, number];
  points: Tensor<Float32Array>;
  rows: Tensor<Int32Array>;
}

export interface Categories {
  kind: "category";
  codes: Tensor<Int32Array>;
  names: string[];
  counts: number[];
}

export interface Quantities {
  kind: "number";
  values: Tensor<Float32Array>;
  low: number;
  high: number;
}

export type Colouring = Categories | Quantities;

export interface Cells {
  values: Tensor;
  names: string[];
  far: number;
  z: number[];
}

export interface Lattice {
  tiles: Tensor<Uint8Array>;
  far: Tensor<Float32Array>;
}

export interface Volume {
  values: Tensor<Float32Array>;
  low: number;
  high: number;
  said: string;
}

/** Rows of the volume that are done: `values` (rows, side), the first of them `first`. */
export interface VolumeRows {
  first: number;
  side: number;
  values: Tensor<Float32Array>;
}

export interface Ellipses {
  centre: Tensor;
  axes: Tensor;
  approximate?: boolean;
}

export interface Neighbour {
  row: number;
  distance: number;
  label: string | number | null;
}

export interface RowAnswer {
  row: number;
  z: number[];
  sd: number[];
  sd_exact: boolean;
  point: [number, number];
  /** One standard deviation of q in the plane, semi-axes as columns (2, 2). */
  ellipse: Tensor;
  far: number | null;
  x: Tensor;
  reconstruction: Tensor;
  names: string[];
  missing: boolean[] | null;
  label: string | number | null;
  split: string;
  context: string;
  elbo: number | null;
  log_likelihood: number | null;
  kl: number | null;
  kl_cells: number[] | null;
  samples: number;
  neighbours: { latent: Neighbour[]; data: Neighbour[] };
}

/** One statement of the evidence job; every one stands by itself. */
export interface Evidence {
  stage: string;
  elbo: number | null;
  elbo_se: number | null;
  reconstruction: number | null;
  kl: number | null;
  iwae: number | null;
  iwae_se: number | null;
  samples: number | null;
  lower: number | null;
  upper: number | null;
  lower_se: number | null;
  upper_se: number | null;
  lower_kind: string | null;
  upper_kind: string | null;
  distributions: number | null;
  seconds: number | null;
  round: number;
  rounds: number;
  k_hat: number | null;
  warnings: string[];
  notes: string[];
}

export interface GridPosterior {
  kind: "grid";
  log_posterior: Tensor;
  log_q: Tensor | null;
  frame: [number, number, number, number];
  log_evidence: number;
  error: number;
  kl: number | null;
  kl_error: number | null;
  said: string;
}

export interface SampledPosterior {
  kind: "samples";
  points: Tensor;
  r_hat: number | null;
  ess: number | null;
  warnings: string[];
  said: string;
}

export type Posterior = GridPosterior | SampledPosterior;

/** Something along both paths. */
export interface Both<T> {
  geodesic: T;
  straight: T;
}

export interface Geodesic {
  path: Tensor<Float32Array>;
  straight: Tensor<Float32Array>;
  length: number;
  error: number;
  chord: number;
  energy: number;
  straight_length: number;
  straight_energy: number;
  converged: boolean;
  status: string;
  strips: Both<Tensor>;
  names: string[];
  lengths: Both<number[]>;
  said: string;
}

export interface Dimensions {
  kl: number[] | null;
  kl_se: number[] | null;
  active: boolean[];
  sd_of_mean: number[];
}

export interface Traversal {
  /** Of the dimension, at each step. */
  values: number[];
  tiles?: Tensor<Uint8Array>;
  cells?: Tensor;
  names: string[];
  base: number[];
}

export interface Thumbnails {
  tiles?: Tensor<Uint8Array>;
  values?: Tensor;
}

export interface Sample extends Thumbnails {
  z: Tensor;
  points: Tensor<Float32Array>;
  names: string[];
}

export type Tool = "decode" | "row" | "path" | "lasso" | "pan";
export type Ground = "lattice" | "volume" | "none";
export type Tab = "decoded" | "row" | "path" | "dimensions" | "selection";

/** An end of a path: a point of the plane, or a row's latent mean. */
export interface Anchor {
  x: number;
  y: number;
  row: number | null;
}
