// Contour lines of a density on a grid, at the levels that enclose given shares of its mass.
import type { Frame } from "../core/view";
import type { Tensor } from "../core/wire";

export interface Contours {
  /** x, y along each line, in the plane; a closed one ends where it begins. */
  lines: Float32Array[];
  share: number;
}

/** Levels of a log density on a grid above which each share of its mass lies. */
export function levels(log: ArrayLike<number>, shares: number[]): number[] {
  const values = Float64Array.from({ length: log.length }, (_, i) => (Number.isFinite(log[i]) ? (log[i] as number) : -Infinity));
  values.sort();
  const top = values[values.length - 1] ?? 0;
  let total = 0;
  for (const value of values) total += Math.exp(value - top);
  return shares.map((share) => {
    let mass = 0;
    for (let k = values.length - 1; k >= 0; k--) {
      mass += Math.exp((values[k] ?? -Infinity) - top);
      if (mass >= share * total) return values[k] ?? -Infinity;
    }
    return values[0] ?? -Infinity;
  });
}

/** The outlines of the smallest regions that hold each share, by marching squares; the second axis points upwards. */
export function contours(log: Tensor, frame: Frame, shares: number[]): Contours[] {
  const [rows = 1, columns = 1] = log.shape;
  const dx = (frame.x1 - frame.x0) / columns;
  const dy = (frame.y1 - frame.y0) / rows;
  const low = -1e4;
  const at = (row: number, column: number) => Math.max(log.data[row * columns + column] ?? low, low);
  return levels(log.data, shares).map((level, k) => {
    const cuts = new Map<number, [number, number]>(); // where the outline crosses an edge of the grid
    const next = new Map<number, number[]>(); // the edges that it goes on to from there
    for (let row = 0; row + 1 < rows; row++) {
      for (let column = 0; column + 1 < columns; column++) {
        const corners = [at(row, column), at(row, column + 1), at(row + 1, column + 1), at(row + 1, column)];
        if (corners.every((value) => value < level) || corners.every((value) => value >= level)) continue;
        const crossed: number[] = [];
        for (let side = 0; side < 4; side++) {
          const a = corners[side] as number;
          const b = corners[(side + 1) % 4] as number;
          if (a < level === b < level) continue;
          const part = Math.min(Math.max((level - a) / (b - a), 0), 1);
          const [ax, ay] = CORNERS[side] as [number, number];
          const [bx, by] = CORNERS[(side + 1) % 4] as [number, number];
          // an edge is named by its lower left corner and by whether it stands
          const edge = 2 * ((row + Math.min(ay, by)) * columns + column + Math.min(ax, bx)) + (ax === bx ? 1 : 0);
          cuts.set(edge, [frame.x0 + (column + 0.5 + ax + part * (bx - ax)) * dx, frame.y0 + (row + 0.5 + ay + part * (by - ay)) * dy]);
          crossed.push(edge);
        }
        for (let piece = 0; piece + 1 < crossed.length; piece += 2) {
          const [from, to] = [crossed[piece] as number, crossed[piece + 1] as number];
          next.set(from, [...(next.get(from) ?? []), to]);
          next.set(to, [...(next.get(to) ?? []), from]);
        }
      }
    }
    return { lines: joined(next).map((line) => Float32Array.from(line.flatMap((edge) => cuts.get(edge) ?? []))), share: shares[k] ?? 0 };
  });
}

/** The lines that pieces make together, open ones from end to end, each piece once. */
function joined(next: Map<number, number[]>): number[][] {
  const found: number[][] = [];
  const ends = [...next].filter(([, others]) => others.length === 1).map(([edge]) => edge);
  for (const start of [...ends, ...next.keys()]) {
    const line = [start];
    for (let here = start, to = next.get(here)?.pop(); to !== undefined; here = to, to = next.get(here)?.pop()) {
      const back = next.get(to);
      back?.splice(back.indexOf(here), 1);
      line.push(to);
    }
    if (line.length > 1) found.push(line);
  }
  return found;
}

const CORNERS: [number, number][] = [
  [0, 0],
  [1, 0],
  [1, 1],
  [0, 1],
];
