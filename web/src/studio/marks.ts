// How long things took: drags from the pointer to the picture, frames of a pan, redraws. Tests and benchmarks read them.

export class Marks {
  sent = 0;
  drawn = 0;
  /** From a pointer's event to its picture in the canvas, ms. */
  readonly latencies: number[] = [];
  /** From a pointer's event to the end of the frame that shows its picture, ms. */
  readonly shown: number[] = [];
  /** Between the frames of a gesture, ms. */
  readonly pans: number[] = [];
  /** A full redraw of the points, from its start to the next frame, ms. */
  readonly redraws: number[] = [];
  /** From the start of navigation to the first points drawn, ms. */
  first = 0;

  keep(list: number[], value: number): void {
    list.push(Math.round(value * 100) / 100);
    if (list.length > 500) list.shift();
  }
}

/** Called once the coming frame has been drawn. */
export function afterFrame(then: () => void): void {
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => then();
    channel.port2.postMessage(0);
  });
}
