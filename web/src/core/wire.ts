// The conversation with the server: requests, jobs with partial results, and drags. See serving/wire.py for the bytes.

export type Numbers = Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array | Int16Array | Uint16Array | Int8Array;
export interface Tensor<T extends Numbers = Numbers> {
  data: T;
  shape: number[];
}

// answers differ by request; each caller names what it expects
export type Answer = Record<string, any>;

export interface Job<T = Answer> {
  result: Promise<T>;
  cancel(): void;
}

/** An answer that is no result: the server's own sentence. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly cancelled = false,
  ) {
    super(message);
  }
}

interface Waiting {
  done: (answer: Answer) => void;
  failed: (error: Refused) => void;
  partial?: (answer: Answer) => void;
}

const KINDS: Record<string, new (buffer: ArrayBuffer, offset: number, length: number) => Numbers> = {
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  uint32: Uint32Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int8: Int8Array,
};

export class Connection {
  private socket: WebSocket;
  private number = 0;
  private waiting = new Map<number, Waiting>();
  private opened: Promise<void>;
  private sequence = 0;
  private flying = false;
  private next: [number, number] | null = null;
  /** Called with each decoded picture or row that is still current: how far off the data, and its bytes. */
  onDrag: (far: number, cells: ArrayBuffer) => void = () => {};
  onDragError: (message: string) => void = () => {};
  /** Called once when the server has gone. */
  onGone: (message: string) => void = () => {};

  constructor(page: string) {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/ws/${page}`);
    this.socket.binaryType = "arraybuffer";
    this.opened = new Promise((ready) => {
      this.socket.onopen = () => ready();
    });
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onclose = (event) => this.gone(event.reason);
  }

  /** One answer. */
  ask<T = Answer>(op: string, args: object = {}): Promise<T> {
    return this.start<T>(op, args).result;
  }

  /** A job, whose partial results come on the way. */
  run<T = Answer>(op: string, args: object = {}, partial: (answer: Answer) => void = () => {}): Job<T> {
    return this.start<T>(op, args, partial);
  }

  /** Ask for what lies at a point of the plane. One question is on its way at a time; the latest wins. */
  drag(x: number, y: number): void {
    this.next = [x, y];
    if (!this.flying) this.send();
  }

  close(): void {
    this.socket.onclose = null;
    this.socket.close();
  }

  private start<T>(op: string, args: object, partial?: (answer: Answer) => void): Job<T> {
    const id = ++this.number;
    const result = new Promise<T>((done, failed) => {
      this.waiting.set(id, { done: done as (answer: Answer) => void, failed, partial });
      this.say({ id, op, args });
    });
    return { result, cancel: () => this.waiting.has(id) && this.say({ id: ++this.number, op: "cancel", args: { job: id } }) };
  }

  private say(message: object): void {
    void this.opened.then(() => {
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
    });
  }

  private send(): void {
    if (!this.next || this.socket.readyState !== WebSocket.OPEN) return;
    const frame = new DataView(new ArrayBuffer(12));
    this.sequence = (this.sequence + 1) >>> 0;
    frame.setUint32(0, this.sequence, true);
    frame.setFloat32(4, this.next[0], true);
    frame.setFloat32(8, this.next[1], true);
    this.next = null;
    this.flying = true;
    this.socket.send(frame.buffer);
  }

  private receive(data: string | ArrayBuffer): void {
    if (typeof data === "string") {
      this.answer(JSON.parse(data));
      return;
    }
    const view = new DataView(data);
    if (view.getUint32(0, true) === 0) {
      this.flying = false;
      if (view.getUint32(4, true) === this.sequence) this.onDrag(view.getFloat32(8, true), data.slice(12));
      this.send();
      return;
    }
    const length = view.getUint32(4, true);
    const message = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, length)));
    const start = 8 + length + (-(8 + length) & 7);
    const arrays = (message.arrays as { dtype: string; shape: number[]; offset: number }[]).map(({ dtype, shape, offset }) => {
      const kind = KINDS[dtype];
      if (!kind) throw new Error(`an array of ${dtype}`);
      return { data: new kind(data, start + offset, shape.reduce((product, side) => product * side, 1)), shape };
    });
    this.answer(filled(message, arrays) as Answer);
  }

  private answer(message: Answer): void {
    if (message.id === -1) {
      this.flying = false;
      this.onDragError(message.error);
      this.send();
      return;
    }
    const asked = this.waiting.get(message.id);
    if (!asked) return;
    if (message.partial) {
      asked.partial?.(message.partial);
      return;
    }
    this.waiting.delete(message.id);
    if (message.error !== undefined) asked.failed(new Refused(message.error, message.cancelled === true));
    else asked.done(message.ok);
  }

  private gone(reason: string): void {
    const said = reason || "The server has stopped. Start it again in the terminal, then reload this page.";
    for (const { failed } of this.waiting.values()) failed(new Refused(said));
    this.waiting.clear();
    this.onGone(said);
  }
}

function filled(value: unknown, arrays: Tensor[]): unknown {
  if (Array.isArray(value)) return value.map((each) => filled(each, arrays));
  if (value && typeof value === "object") {
    if ("$array" in value) return arrays[(value as { $array: number }).$array];
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, filled(each, arrays)]));
  }
  return value;
}

export const connect = (page: string): Connection => new Connection(page);
