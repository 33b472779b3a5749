// One run that is looked at: its connection, its map and what was asked of it. Two stations stand side by side.
import { batch, computed, signal } from "@preact/signals";
import { paint as paintPicture } from "../core/pictures";
import { View, type Frame } from "../core/view";
import { connect, Refused, type Answer, type Connection } from "../core/wire";
import { Cloud } from "./cloud";
import { afterFrame, Marks } from "./marks";
import type {
  Anchor, Cells, Colouring, Dimensions, Ellipses, Evidence, Geodesic, Ground, Info, Lattice, PlaneAnswer, PlaneKey, Posterior,
  RowAnswer, Sample, Thumbnails, Traversal, Volume,
} from "./types";
import { once, Work } from "./work";

const PACE = 6; // ms between drags, at least: the desk takes so many messages a second

export interface Placed<T> {
  frame: Frame;
  value: T;
}

export interface Selection {
  positions: number[];
  line: [number, number][];
}

export class Station {
  readonly connection: Connection = connect("studio");
  readonly marks = new Marks();
  readonly view = new View();
  /** Goes up whenever the view has changed. */
  readonly seen = signal(0);
  /** The part of the plane that was asked for; the view shows at least this much. */
  kept: Frame = { x0: -1, y0: -1, x1: 1, y1: 1 };
  readonly run = signal(-1);
  readonly info = signal<Info | null>(null);
  readonly ready = signal(false);
  /** Why there is no map at all. */
  readonly failed = signal("");
  /** The server has gone. */
  readonly gone = signal("");
  /** The last request that could not be answered, in the desk's words. */
  readonly notice = signal("");
  readonly plane = signal<PlaneKey>({ kind: "dims", i: 0, j: 1 });
  readonly flat = signal<PlaneAnswer | null>(null);
  readonly cloud = signal<Cloud | null>(null);
  readonly column = signal("");
  readonly colouring = signal<Colouring | null>(null);
  readonly labels = signal<Colouring | null>(null);
  readonly hidden = signal<ReadonlySet<number>>(new Set());
  readonly ground = signal<Ground>("lattice");
  readonly lattice = signal<Placed<Lattice> | null>(null);
  readonly volume = signal<Placed<Volume> | null>(null);
  readonly volumeState = new Work<Volume>();
  readonly cross = signal<[number, number] | null>(null);
  readonly far = signal<number | null>(null);
  /** What was decoded last: picture bytes, or the numbers of a table's row. */
  readonly decoded = signal<{ x: number; y: number; far: number; cells: ArrayBuffer } | null>(null);
  readonly any = computed(() => this.decoded.value !== null);
  readonly off = computed(() => (this.far.value ?? 0) > 1);
  readonly cell = new Work<Cells>();
  readonly row = new Work<RowAnswer>();
  readonly chosen = signal<number | null>(null);
  readonly evidence = new Work<Evidence>();
  readonly rounds = signal<Evidence[]>([]);
  readonly posterior = new Work<Posterior>();
  readonly wanted = signal(false);
  readonly anchors = signal<[Anchor | null, Anchor | null]>([null, null]);
  readonly path = new Work<Geodesic>();
  readonly dimensions = new Work<Dimensions>();
  readonly traversal = new Work<Traversal>();
  readonly selection = signal<Selection | null>(null);
  readonly ellipses = new Work<Ellipses>();
  readonly draws = new Work<Sample>();
  readonly hover = signal<{ position: number; row: number; px: number; py: number } | null>(null);
  readonly hoverEllipse = signal<Ellipses | null>(null);
  readonly thumbs = signal<ReadonlyMap<number, Uint8Array | number[]>>(new Map());
  /** Canvases that show what was decoded last. */
  readonly screens = new Set<HTMLCanvasElement>();
  private colourings = new Map<string, Colouring>();
  private flying: { x: number; y: number; time: number } | null = null;
  private waiting: { x: number; y: number; time: number } | null = null;
  private paced = 0;
  private last = 0;

  constructor() {
    this.connection.onDrag = (far, cells) => this.dragged(far, cells);
    this.connection.onDragError = (said) => {
      this.notice.value = said;
      this.landed();
    };
    this.connection.onGone = (said) => {
      this.gone.value = said;
    };
  }

  /** The answer, or null with the desk's sentence in `notice`. */
  async ask<T = Answer>(op: string, args: object = {}): Promise<T | null> {
    try {
      return await this.connection.ask<T>(op, args);
    } catch (error) {
      if (error instanceof Refused && !error.cancelled) this.notice.value = error.message;
      return null;
    }
  }

  /** Open a run, forgetting the one before. */
  async open(run: number, plane: PlaneKey | null = null, column: string | null = null): Promise<boolean> {
    batch(() => {
      this.run.value = run;
      this.ready.value = false;
      this.failed.value = "";
      this.notice.value = "";
      this.info.value = null;
      this.cloud.value = null;
      this.colouring.value = null;
      this.labels.value = null;
      this.decoded.value = null;
      this.colourings.clear();
      this.dimensions.clear();
      this.draws.clear();
      this.forget();
      this.leaveRow();
    });
    try {
      const info = await this.connection.ask<Info>("open", { run });
      this.info.value = info;
      if (info.kind === "table" && this.ground.value === "lattice") this.ground.value = "none";
      const wanted = plane && info.planes.some((each) => sameKind(each, plane, info.latent)) ? plane : info.planes[0];
      const known = column !== null && info.columns.some((each) => each.name === column);
      const first = known ? column : column === "" ? "" : (info.label ?? info.columns[0]?.name ?? "");
      const coloured = this.colourBy(first ?? "");
      if (!wanted || !(await this.lookAt(wanted, true))) return false;
      await coloured;
      if (info.label) this.labels.value = await this.colouringOf(info.label);
      return true;
    } catch (error) {
      this.failed.value = (error as Error).message;
      return false;
    }
  }

  /** Look at another plane. */
  async lookAt({ kind, i, j }: PlaneKey, opening = false): Promise<boolean> {
    try {
      const flat = await this.connection.ask<PlaneAnswer>("plane", { kind, i, j });
      batch(() => {
        this.forget();
        this.plane.value = { kind, i, j };
        this.flat.value = flat;
        this.cloud.value = new Cloud(flat.points.data, flat.rows.data);
        this.show(flat.frame);
        this.ready.value = true;
      });
      const row = this.chosen.value;
      if (!opening && row !== null) void this.row.start(once(this.connection.ask<RowAnswer>("row", { row })), (answer) => answer, true);
      return true;
    } catch (error) {
      if (opening) this.failed.value = (error as Error).message;
      else this.notice.value = (error as Error).message;
      return false;
    }
  }

  /** Show a part of the plane, x0, y0, x1, y1, as large as it fits; it stays when the map's size changes. */
  show([x0, y0, x1, y1]: readonly number[]): void {
    const frame = { x0: x0 ?? -1, y0: y0 ?? -1, x1: x1 ?? 1, y1: y1 ?? 1 };
    this.view.fit(frame);
    this.seen.value++;
    this.kept = frame;
  }

  /** The view was moved by hand. */
  moved(): void {
    this.kept = this.view.frame;
    this.seen.value++;
  }

  /** The map has another size. */
  resize(width: number, height: number): void {
    this.view.resize(width, height);
    this.view.fit(this.kept);
    this.seen.value++;
  }

  /** Show all points again. */
  reset(): void {
    if (this.flat.value) this.show(this.flat.value.frame);
  }

  async colourBy(column: string): Promise<void> {
    const found = column ? await this.colouringOf(column) : null;
    if (column && !found) return;
    batch(() => {
      this.column.value = column;
      this.colouring.value = found;
      this.hidden.value = new Set();
    });
  }

  toggle(code: number): void {
    const hidden = new Set(this.hidden.value);
    if (!hidden.delete(code)) hidden.add(code);
    this.hidden.value = hidden;
  }

  /** Whether a point is not switched off in the legend. */
  readonly visible = (position: number): boolean => {
    const colouring = this.colouring.value;
    return colouring?.kind !== "category" || !this.hidden.value.has(colouring.codes.data[position] ?? -1);
  };

  /** A row's label in words, or what it is coloured by. */
  labelled(position: number): string {
    for (const colouring of [this.labels.value, this.colouring.value]) {
      if (colouring?.kind === "category") return colouring.names[colouring.codes.data[position] ?? -1] ?? "no label";
      if (colouring?.kind === "number") return String(Math.round((colouring.values.data[position] ?? NaN) * 1000) / 1000);
    }
    return "";
  }

  /** Decode a point of the plane: the latest wins. `time`: when the pointer was there. */
  decode(x: number, y: number, time = performance.now()): void {
    if (!this.ready.value || this.gone.value) return;
    this.cross.value = [x, y];
    this.waiting = { x, y, time };
    if (!this.flying) this.launch();
  }

  private launch(): void {
    if (!this.waiting || this.paced) return;
    const wait = PACE - (performance.now() - this.last);
    if (wait > 0) {
      this.paced = window.setTimeout(() => {
        this.paced = 0;
        if (!this.flying) this.launch();
      }, wait);
      return;
    }
    this.last = performance.now();
    this.flying = this.waiting;
    this.waiting = null;
    this.marks.sent++;
    this.connection.drag(this.flying.x, this.flying.y);
  }

  private landed(): { x: number; y: number; time: number } | null {
    const flown = this.flying;
    this.flying = null;
    // the connection clears its own flag after this call returns
    if (this.waiting) queueMicrotask(() => !this.flying && this.launch());
    return flown;
  }

  private dragged(far: number, cells: ArrayBuffer): void {
    const flown = this.landed();
    const info = this.info.value;
    if (!flown || !info) return;
    if (info.kind === "image" && info.shape) {
      const bytes = new Uint8Array(cells);
      for (const screen of this.screens) paintPicture(screen, bytes, info.shape);
    }
    this.decoded.value = { x: flown.x, y: flown.y, far, cells };
    this.far.value = far;
    this.marks.drawn++;
    this.marks.keep(this.marks.latencies, performance.now() - flown.time);
    afterFrame(() => this.marks.keep(this.marks.shown, performance.now() - flown.time));
  }

  /** Pictures or values of rows, asked for once each. */
  async fetch(rows: number[]): Promise<void> {
    const missing = rows.filter((row) => !this.thumbs.value.has(row)).slice(0, 64);
    if (!missing.length) return;
    const answer = await this.ask<Thumbnails>("thumbnails", { rows: missing });
    const info = this.info.value;
    if (!answer || !info) return;
    const kept = new Map(this.thumbs.value);
    missing.forEach((row, k) => kept.set(row, piece(answer, k)));
    this.thumbs.value = kept;
  }

  async colouringOf(column: string): Promise<Colouring | null> {
    const known = this.colourings.get(column);
    if (known) return known;
    const found = await this.ask<Colouring>("colour", { column });
    if (found) this.colourings.set(column, found);
    return found;
  }

  leaveRow(): void {
    batch(() => {
      this.chosen.value = null;
      this.row.clear();
      this.evidence.clear();
      this.rounds.value = [];
      this.posterior.clear();
    });
  }

  close(): void {
    this.connection.close();
  }

  /** Drop what belongs to a plane. */
  private forget(): void {
    this.lattice.value = null;
    this.volume.value = null;
    this.volumeState.clear();
    this.posterior.clear();
    this.path.clear();
    this.ellipses.clear();
    this.traversal.clear();
    this.draws.clear();
    this.anchors.value = [null, null];
    this.selection.value = null;
    this.hover.value = null;
    this.hoverEllipse.value = null;
    this.cross.value = null;
    this.decoded.value = null;
    this.far.value = null;
    this.cell.clear();
    this.thumbs.value = this.info.value ? this.thumbs.value : new Map();
  }
}

const sameKind = (choice: PlaneKey, plane: PlaneKey, latent: number): boolean =>
  choice.kind === plane.kind && (plane.kind === "pca" || (plane.i < latent && plane.j < latent));

/** The k-th picture's bytes, or the k-th row's values. */
export function piece({ tiles, values }: Thumbnails, k: number): Uint8Array | number[] {
  const tensor = tiles ?? values;
  if (!tensor) return [];
  const size = tensor.shape.slice(1).reduce((product, side) => product * side, 1);
  const cut = tensor.data.subarray(k * size, (k + 1) * size);
  return tiles ? (cut as Uint8Array) : Array.from(cut);
}
