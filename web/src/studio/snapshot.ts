// window.__studio: what the page shows, as a frozen copy for tests and benchmarks. Nothing can be changed through it.
import { stillness, theme } from "../core/theme";
import { current, front, runs, spoken, stations, tab, tool } from "./state";
import type { Station } from "./station";

function of(station: Station) {
  const s = station;
  const info = s.info.value;
  const decoded = s.decoded.value;
  const path = s.path.value.value;
  const posterior = s.posterior.value.value;
  const row = s.row.value.value;
  const selection = s.selection.value;
  const cloud = s.cloud.value;
  const { marks } = s;
  return {
    ready: s.ready.value,
    error: s.gone.value || s.failed.value || s.notice.value,
    run: s.run.value,
    info: info && { ...info, active: [...info.active], planes: info.planes.length },
    plane: { ...s.plane.value },
    slice: s.flat.value?.said ?? "",
    view: { ...s.view.frame },
    size: [s.view.width, s.view.height],
    points: cloud?.n ?? 0,
    shown: cloud ? visible(s) : 0,
    colour: s.column.value,
    legend: s.colouring.value?.kind === "category" ? s.colouring.value.names.length : null,
    background: s.ground.value,
    lattice: s.lattice.value && { shape: [...s.lattice.value.value.tiles.shape], frame: { ...s.lattice.value.frame } },
    volume: s.volume.value && { shape: [...s.volume.value.value.values.shape], low: s.volume.value.value.low, high: s.volume.value.value.high, said: s.volume.value.value.said, state: s.volumeState.state.value },
    cross: s.cross.value && [...s.cross.value],
    far: s.far.value,
    hover: s.hover.value && { row: s.hover.value.row, thumb: s.thumbs.value.has(s.hover.value.row), ellipse: s.hoverEllipse.value !== null },
    decoded: decoded && { x: decoded.x, y: decoded.y, far: decoded.far, bytes: Array.from(new Uint8Array(decoded.cells)) },
    row: row && { row: row.row, state: s.row.state.value, elbo: row.elbo, point: [...row.point], label: row.label },
    chosen: s.chosen.value,
    anchors: s.anchors.value.map((each) => each && { ...each }),
    path: { state: s.path.state.value, said: s.path.said.value, length: path?.length ?? null, energy: path?.energy ?? null, straight_length: path?.straight_length ?? null, straight_energy: path?.straight_energy ?? null, error: path?.error ?? null, status: path?.status ?? null, steps: path?.lengths.geodesic.length ?? 0 },
    posterior: { state: s.posterior.state.value, kind: posterior?.kind ?? null, kl: posterior?.kind === "grid" ? posterior.kl : null, log_evidence: posterior?.kind === "grid" ? posterior.log_evidence : null, draws: posterior?.kind === "samples" ? posterior.points.shape[0] : null },
    evidence: { state: s.evidence.state.value, rounds: s.rounds.value.map(({ round, elbo, iwae, lower, upper }) => ({ round, elbo, iwae, lower, upper })) },
    dimensions: s.dimensions.value.value && { kl: s.dimensions.value.value.kl && [...s.dimensions.value.value.kl], active: [...s.dimensions.value.value.active] },
    traversal: s.traversal.value.value && { values: [...s.traversal.value.value.values] },
    draws: s.draws.value.value?.points.shape[0] ?? 0,
    selection: selection && { count: selection.positions.length, rows: selection.positions.slice(0, 5000).map((i) => cloud?.rows[i] ?? -1), ellipses: s.ellipses.value.value?.axes.shape[0] ?? 0 },
    drags: { sent: marks.sent, drawn: marks.drawn, lastMs: marks.latencies.at(-1) ?? null, latencies: [...marks.latencies], shown: [...marks.shown] },
    frames: { pans: [...marks.pans], redraws: [...marks.redraws], first: marks.first },
  };
}

function visible(station: Station): number {
  const n = station.cloud.value?.n ?? 0;
  let count = 0;
  for (let i = 0; i < n; i++) if (station.visible(i)) count++;
  return count;
}

function frozen<T>(value: T): T {
  if (value && typeof value === "object" && !Object.isFrozen(value)) {
    Object.values(value).forEach(frozen);
    Object.freeze(value);
  }
  return value;
}

/** Offer the copy as window.__studio. */
export function offer(): void {
  Object.defineProperty(window, "__studio", {
    configurable: true,
    get: () => {
      const now = current.value;
      return frozen({
        ...(now ? of(now) : { ready: false }),
        runs: runs.value.map((each) => ({ ...each })),
        tool: tool.value,
        tab: tab.value,
        front: front.value,
        theme: theme(),
        still: stillness.matches,
        spoken: spoken.value,
        maps: stations.value.map(of),
      });
    },
  });
}
