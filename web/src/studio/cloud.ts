// The points of a map: where they lie, which is near, which are inside a shape.

const SIDE = 256; // cells of the index along an axis, at most

export class Cloud {
  readonly n: number;
  /** Position of a row number. */
  readonly place = new Map<number, number>();
  /** The order in which points are drawn: shuffled, so that no class lies on top of all others. */
  readonly order: Uint32Array;
  private side: number;
  private x0 = 0;
  private y0 = 0;
  private width = 1;
  private height = 1;
  private start: Uint32Array;
  private sorted: Uint32Array;

  constructor(
    readonly points: Float32Array,
    readonly rows: Int32Array,
  ) {
    this.n = rows.length;
    rows.forEach((row, i) => this.place.set(row, i));
    this.order = shuffled(this.n);
    this.side = Math.min(Math.max(Math.ceil(Math.sqrt(this.n / 3)), 1), SIDE);
    this.measure();
    const cells = new Uint32Array(this.n);
    this.start = new Uint32Array(this.side * this.side + 1);
    for (let i = 0; i < this.n; i++) {
      const cell = this.row(this.y(i)) * this.side + this.column(this.x(i));
      cells[i] = cell;
      this.start[cell + 1] = (this.start[cell + 1] ?? 0) + 1;
    }
    for (let i = 0; i < this.side * this.side; i++) this.start[i + 1] = (this.start[i + 1] ?? 0) + (this.start[i] ?? 0);
    const filled = this.start.slice();
    this.sorted = new Uint32Array(this.n);
    for (let i = 0; i < this.n; i++) {
      const cell = cells[i] ?? 0;
      const at = filled[cell] ?? 0;
      this.sorted[at] = i;
      filled[cell] = at + 1;
    }
  }

  x(i: number): number {
    return this.points[2 * i] ?? 0;
  }

  y(i: number): number {
    return this.points[2 * i + 1] ?? 0;
  }

  /** Position of the nearest point within a radius that may be seen, or -1. */
  nearest(x: number, y: number, radius: number, seen: (i: number) => boolean = () => true): number {
    let best = -1;
    let least = radius * radius;
    for (let row = this.row(y - radius); row <= this.row(y + radius); row++) {
      for (let column = this.column(x - radius); column <= this.column(x + radius); column++) {
        const cell = row * this.side + column;
        for (let k = this.start[cell] ?? 0; k < (this.start[cell + 1] ?? 0); k++) {
          const i = this.sorted[k] ?? 0;
          const square = (this.x(i) - x) ** 2 + (this.y(i) - y) ** 2;
          if (square <= least && seen(i)) {
            least = square;
            best = i;
          }
        }
      }
    }
    return best;
  }

  /** Positions of the points inside a closed line, by the even-odd rule. */
  inside(line: [number, number][], seen: (i: number) => boolean): number[] {
    const xs = line.map(([x]) => x);
    const ys = line.map(([, y]) => y);
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const found: number[] = [];
    for (let i = 0; i < this.n; i++) {
      const x = this.x(i);
      const y = this.y(i);
      if (x < left || x > right || y < low || y > high || !seen(i)) continue;
      let odd = false;
      for (let k = 0, j = line.length - 1; k < line.length; j = k++) {
        const ya = ys[k] ?? 0;
        const yb = ys[j] ?? 0;
        if (ya > y !== yb > y && x < (((xs[j] ?? 0) - (xs[k] ?? 0)) * (y - ya)) / (yb - ya) + (xs[k] ?? 0)) odd = !odd;
      }
      if (odd) found.push(i);
    }
    return found;
  }

  private measure(): void {
    if (!this.n) return;
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < this.n; i++) {
      x0 = Math.min(x0, this.x(i));
      x1 = Math.max(x1, this.x(i));
      y0 = Math.min(y0, this.y(i));
      y1 = Math.max(y1, this.y(i));
    }
    this.x0 = x0;
    this.y0 = y0;
    this.width = x1 - x0 || 1;
    this.height = y1 - y0 || 1;
  }

  private column(x: number): number {
    return this.cell((x - this.x0) / this.width);
  }

  private row(y: number): number {
    return this.cell((y - this.y0) / this.height);
  }

  private cell(part: number): number {
    return Math.min(Math.max(Math.floor(part * this.side), 0), this.side - 1);
  }
}

/** 0 … n−1 in an order that looks random and is always the same. */
function shuffled(n: number): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  let state = 0x9e3779b9;
  for (let i = n - 1; i > 0; i--) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const j = (state >>> 0) % (i + 1);
    const kept = order[i] ?? 0;
    order[i] = order[j] ?? 0;
    order[j] = kept;
  }
  return order;
}
