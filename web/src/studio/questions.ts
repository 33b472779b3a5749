// What a reader asks of a run, and where the answers go.
import { batch } from "@preact/signals";
import { whole } from "../core/numbers";
import type { Frame } from "../core/view";
import type { Job } from "../core/wire";
import { save, sheet } from "./files";
import { announce, front, linked, stations, tab } from "./state";
import { Station, type Placed } from "./station";
import type {
  Anchor, Cells, Dimensions, Ellipses, Evidence, Geodesic, Ground, Lattice, PlaneKey, Posterior, RowAnswer, Sample, Traversal, Volume, VolumeRows,
} from "./types";
import { once } from "./work";

const ROWS = 5000; // of a table in one message, whose length the server bounds
const same = <T>(answer: T): T => answer;
const list = ({ x0, y0, x1, y1 }: Frame): number[] => [x0, y0, x1, y1];

/** Choose a row, in the other map as well if both show the same data. */
export async function choose(station: Station, row: number, show = true): Promise<void> {
  if (show) tab.value = "row";
  for (const each of linked(station)) void chooseHere(each, row);
}

async function chooseHere(station: Station, row: number): Promise<void> {
  if (station.chosen.value !== row) {
    batch(() => {
      station.evidence.clear();
      station.rounds.value = [];
      station.posterior.clear();
      station.chosen.value = row;
    });
  }
  const answer = await station.row.start(once(station.connection.ask<RowAnswer>("row", { row })), same, true);
  if (!answer) {
    if (station.row.state.value === "failed") station.chosen.value = station.row.value.value?.row ?? null;
    return;
  }
  announce(`Row ${row}${answer.label === null ? "" : `, ${answer.label}`} is chosen.`);
  if (station.wanted.value) measurePosterior(station);
  const { latent, data } = answer.neighbours;
  void station.fetch([...new Set([...latent, ...data].map((each) => each.row))]);
}

/** The true posterior of the chosen row: on a grid in a plane that is the whole latent space, by draws elsewhere. */
export function measurePosterior(station: Station): void {
  const row = station.chosen.value;
  if (row === null) return;
  void station.posterior.start(station.connection.run<Posterior>("posterior", { row }), same).then((found) => {
    if (found) announce(found.kind === "grid" ? "The true posterior is drawn on the map." : "Draws from the true posterior are on the map.");
  });
}

/** The evidence of the chosen row, round by round. */
export function measureEvidence(station: Station): void {
  const row = station.chosen.value;
  if (row === null) return;
  station.rounds.value = [];
  const job: Job<Evidence> = station.connection.run<Evidence>("evidence", { row }, (partial) => {
    if (station.chosen.value === row) station.rounds.value = [...station.rounds.value, partial as Evidence];
  });
  void station.evidence.start(job, same).then((found) => {
    if (found) announce("The evidence is measured.");
  });
}

/** Set an end of the path; both set, the geodesic is asked for. */
export function anchor(station: Station, which: 0 | 1, at: Anchor | null, go = true): void {
  const both: [Anchor | null, Anchor | null] = [...station.anchors.value];
  both[which] = at;
  station.anchors.value = both;
  station.path.clear();
  if (go) walk(station);
}

export function walk(station: Station): void {
  const [a, b] = station.anchors.value;
  if (!a || !b) return;
  const end = (each: Anchor) => each.row ?? [each.x, each.y];
  void station.path.start(station.connection.run<Geodesic>("geodesic", { a: end(a), b: end(b) }), same).then((found) => {
    if (found) announce(`Geodesic of length ${found.length.toFixed(3)}, straight path ${found.straight_length.toFixed(3)}.`);
  });
}

/** Select the points inside a closed line. */
export function select(station: Station, line: [number, number][]): void {
  const cloud = station.cloud.value;
  if (!cloud || line.length < 3) return;
  const positions = cloud.inside(line, station.visible);
  station.selection.value = { positions, line };
  station.ellipses.clear();
  tab.value = "selection";
  announce(`${whole(positions.length)} ${positions.length === 1 ? "row" : "rows"} selected.`);
  void station.fetch(positions.slice(0, 24).map((i) => cloud.rows[i] ?? 0));
}

export function selectedEllipses(station: Station): void {
  const cloud = station.cloud.value;
  const selection = station.selection.value;
  if (!cloud || !selection) return;
  const rows = selection.positions.slice(0, 500).map((i) => cloud.rows[i] ?? 0);
  void station.ellipses.start(once(station.connection.ask<Ellipses>("ellipses", { rows })), same);
}

/** A table of rows, made by the desk and saved by the browser. */
export async function exportRows(station: Station, positions: number[] | null, name: string): Promise<void> {
  const cloud = station.cloud.value;
  if (!cloud) return;
  const rows = positions === null ? Array.from(cloud.rows) : positions.map((i) => cloud.rows[i] ?? 0);
  const parts: string[] = [];
  for (let first = 0; first < rows.length; first += ROWS) {
    const answer = await station.ask<{ csv: string }>("table", { rows: rows.slice(first, first + ROWS) });
    if (!answer) return;
    parts.push(first ? answer.csv.slice(answer.csv.indexOf("\n") + 1) : answer.csv);
  }
  save(sheet(parts.join("")), name);
  announce(`${whole(rows.length)} rows are saved as ${name}.`);
}

export function measureDimensions(station: Station): void {
  if (station.dimensions.state.value !== "idle") return;
  void station.dimensions.start(once(station.connection.ask<Dimensions>("dimensions")), same);
}

export function traverse(station: Station, dim: number, row: number | null): void {
  void station.traversal.start(once(station.connection.ask<Traversal>("traversal", { dim, row, steps: 11 })), same);
}

export function drawFromPrior(station: Station, n: number, seed: number): void {
  void station.draws.start(once(station.connection.ask<Sample>("sample", { n, seed })), same);
}

/** The row under the crosshair in numbers: for tables, and for the coordinates of a point. */
export function readCell(station: Station): void {
  const at = station.cross.value;
  if (at) void station.cell.start(once(station.connection.ask<Cells>("cell", { x: at[0], y: at[1] })), same, true);
}

/** Ask for the background that the current view needs. */
export function fillGround(station: Station): void {
  const info = station.info.value;
  if (!info || !station.ready.value) return;
  const frame = station.view.frame;
  if (station.ground.value !== "volume") station.volumeState.cancel();
  if (station.ground.value === "lattice" && info.kind === "image") void fillLattice(station, frame, info.latent === 1);
  if (station.ground.value === "volume") fillVolume(station, frame);
}

async function fillLattice(station: Station, frame: Frame, line: boolean): Promise<void> {
  const cells = (length: number) => Math.min(Math.max(Math.round(length / 40), 2), 24);
  const across = line ? 16 : cells(station.view.width);
  const down = line ? 1 : cells(station.view.height);
  const asked = line ? { ...frame, ...band(frame, across) } : frame;
  const plane = station.flat.value;
  const value = await station.ask<Lattice>("lattice", { frame: list(asked), across, down });
  if (value && plane === station.flat.value) station.lattice.value = { frame: asked, value } satisfies Placed<Lattice>;
}

const band = ({ x0, x1 }: Frame, across: number) => ({ y0: (x0 - x1) / across / 2, y1: (x1 - x0) / across / 2 });

function fillVolume(station: Station, frame: Frame): void {
  let values: Float32Array | null = null;
  const show = (value: Volume) => {
    station.volume.value = { frame, value };
    return value;
  };
  const job = station.connection.run<Volume>("volume", { frame: list(frame), side: 48 }, (partial) => {
    const { first, side, values: rows } = partial as VolumeRows;
    values ??= new Float32Array(side * (station.info.value?.latent === 1 ? 1 : side)).fill(NaN);
    values.set(rows.data, first * side);
    if (station.volumeState.state.value !== "running" || station.ground.value !== "volume") return;
    const known = values.filter((value) => Number.isFinite(value)).sort();
    const [low, high] = [known[Math.floor(known.length * 0.02)] ?? 0, known[Math.floor(known.length * 0.98)] ?? 1];
    show({ values: { data: values, shape: [values.length / side, side] }, low, high, said: "" });
  });
  void station.volumeState.start(job, show);
}

interface Beside {
  plane: PlaneKey | null;
  colour: string | null;
  ground: Ground | null;
}

/** Put a second run beside the first, or take it away. */
export async function sideBySide(run: number | null, { plane, colour, ground }: Beside = { plane: null, colour: null, ground: null }): Promise<Station | null> {
  const [first, second] = stations.value;
  if (!first) return null;
  if (run === null) {
    second?.close();
    batch(() => {
      front.value = 0;
      stations.value = [first];
    });
    return null;
  }
  const beside = second ?? new Station();
  if (!second) stations.value = [first, beside];
  if (ground) beside.ground.value = ground;
  await beside.open(run, plane, colour);
  const row = first.chosen.value;
  if (row !== null && linked(first).includes(beside)) {
    void chooseHere(beside, row);
  }
  return beside;
}
