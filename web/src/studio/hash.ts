// What is looked at, in the address: read when the page opens, written as it changes.
import { batch, effect } from "@preact/signals";
import { choose, sideBySide, walk } from "./questions";
import { front, stations, tab, tool } from "./state";
import type { Station } from "./station";
import type { Anchor, Ground, PlaneKey, Tab, Tool } from "./types";

const TOOLS: Tool[] = ["decode", "row", "path", "lasso", "pan"];
const TABS: Tab[] = ["decoded", "row", "path", "dimensions", "selection"];
const GROUNDS: Ground[] = ["lattice", "volume", "none"];
const WAIT = 250; // ms after the last change

export interface Wanted {
  run: number;
  plane: PlaneKey | null;
  view: number[] | null;
  colour: string | null;
  ground: Ground | null;
  row: number | null;
  a: string | null;
  b: string | null;
}

const one = <T extends string>(value: string | null, known: T[]): T | null => known.find((each) => each === value) ?? null;
const list = (value: string | null): number[] => (value ?? "").split(",").map(Number);

function wanted(asked: URLSearchParams, prefix: string): Wanted {
  const get = (name: string) => asked.get(prefix + name);
  const [kind, i, j] = (get("plane") ?? "").split(",");
  const view = list(get("view"));
  const row = get("row");
  return {
    run: Number(get("run")) || 0,
    plane: kind === "pca" ? { kind, i: 0, j: 1 } : kind === "dims" && Number.isInteger(Number(i)) && Number.isInteger(Number(j)) ? { kind, i: Number(i), j: Number(j) } : null,
    view: view.length === 4 && view.every(Number.isFinite) ? view : null,
    colour: get("colour"),
    ground: one(get("ground"), GROUNDS),
    row: row !== null && Number.isInteger(Number(row)) ? Number(row) : null,
    a: get("a"),
    b: get("b"),
  };
}

/** Open what an address asks for. */
export async function restore(first: Station): Promise<void> {
  const asked = new URLSearchParams(location.hash.slice(1));
  batch(() => {
    tool.value = one(asked.get("tool"), TOOLS) ?? "decode";
    tab.value = one(asked.get("tab"), TABS) ?? "decoded";
  });
  const mine = wanted(asked, "");
  if (mine.ground) first.ground.value = mine.ground;
  if (!(await first.open(mine.run, mine.plane, mine.colour))) return;
  arrange(first, mine);
  if (asked.has("2.run")) {
    const other = wanted(asked, "2.");
    const beside = await sideBySide(other.run, other);
    if (beside) arrange(beside, other);
    front.value = asked.get("front") === "2" ? 1 : 0;
  }
}

function arrange(station: Station, { view, ground, row, a, b }: Wanted): void {
  if (ground) station.ground.value = ground;
  if (view) station.show(view);
  if (row !== null && station.chosen.value !== row) void choose(station, row, false);
  const ends: [Anchor | null, Anchor | null] = [end(station, a), end(station, b)];
  if (ends[0] || ends[1]) {
    station.anchors.value = ends;
    walk(station);
  }
}

function end(station: Station, text: string | null): Anchor | null {
  if (!text) return null;
  if (text.startsWith("row:")) {
    const row = Number(text.slice(4));
    const cloud = station.cloud.value;
    const position = cloud?.place.get(row);
    return cloud && position !== undefined ? { x: cloud.x(position), y: cloud.y(position), row } : null;
  }
  const [x = NaN, y = NaN] = list(text);
  return Number.isFinite(x) && Number.isFinite(y) ? { x, y, row: null } : null;
}

const brief = (value: number): string => String(Number(value.toPrecision(6)));

function written(station: Station, prefix: string, into: URLSearchParams): void {
  const { x0, y0, x1, y1 } = station.kept;
  const { kind, i, j } = station.plane.value;
  into.set(`${prefix}run`, String(station.run.value));
  into.set(`${prefix}plane`, kind === "pca" ? "pca" : `dims,${i},${j}`);
  into.set(`${prefix}view`, [x0, y0, x1, y1].map(brief).join(","));
  into.set(`${prefix}colour`, station.column.value);
  into.set(`${prefix}ground`, station.ground.value);
  if (station.chosen.value !== null) into.set(`${prefix}row`, String(station.chosen.value));
  const [a, b] = station.anchors.value;
  if (a) into.set(`${prefix}a`, a.row === null ? `${brief(a.x)},${brief(a.y)}` : `row:${a.row}`);
  if (b) into.set(`${prefix}b`, b.row === null ? `${brief(b.x)},${brief(b.y)}` : `row:${b.row}`);
}

/** The address of what is looked at. */
export function address(): string {
  const into = new URLSearchParams();
  stations.value.forEach((station, k) => written(station, k ? "2." : "", into));
  if (stations.value.length > 1 && front.value) into.set("front", "2");
  into.set("tool", tool.value);
  into.set("tab", tab.value);
  return `#${into.toString().replaceAll("%2C", ",").replaceAll("%3A", ":")}`;
}

/** Keep the address up to date. */
export function follow(): () => void {
  let timer = 0;
  return effect(() => {
    for (const station of stations.value) {
      void [station.ready.value, station.seen.value, station.plane.value, station.column.value, station.ground.value, station.chosen.value, station.anchors.value];
    }
    void [front.value, tool.value, tab.value];
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      if (stations.peek().every((station) => station.ready.peek())) history.replaceState(null, "", address());
    }, WAIT);
  });
}
