// The paths between two points: a job, and the latest of it.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Job, Tensor } from "../../core/wire";
import { desk, failed, ready, wasCancelled, waiting, type Loadable } from "../desk";
import type { Point } from "./drawing";

export interface Path {
  path: Tensor;
  straight: Tensor;
  length: number;
  error: number;
  straight_length: number;
  converged: boolean;
  status: string;
  strips: { geodesic: Tensor; straight: Tensor };
  said: string;
}

const PATIENCE = 5000; // milliseconds until one is told what else goes on
const PAUSE = 250; // milliseconds after the last key before a search begins

export function usePath(): {
  now: Loadable<Path> | { state: "none" };
  find: (a: Point, b: Point) => void;
  forget: () => void;
} {
  const [now, setNow] = useState<Loadable<Path> | { state: "none" }>({ state: "none" });
  const job = useRef<Job<Path> | null>(null);
  const timer = useRef(0);
  const stop = (): void => {
    window.clearTimeout(timer.current);
    job.current?.cancel();
    job.current = null;
  };
  useEffect(() => stop, []);
  const find = (a: Point, b: Point): void => {
    stop();
    setNow(waiting("Looking for the shortest path …"));
    timer.current = window.setTimeout(() => {
      const mine = desk().run<Path>("geodesic", { a, b });
      job.current = mine;
      timer.current = window.setTimeout(() => {
        if (job.current === mine)
          setNow(
            waiting(
              "Looking for the shortest path; what is still being trained or measured for other figures may come first …",
            ),
          );
      }, PATIENCE);
      mine.result
        .then((found) => job.current === mine && setNow(ready(found)))
        .catch((error: unknown) => job.current === mine && !wasCancelled(error) && setNow(failed(error)))
        .finally(() => job.current === mine && window.clearTimeout(timer.current));
    }, PAUSE);
  };
  const forget = (): void => {
    stop();
    setNow({ state: "none" });
  };
  return { now, find, forget };
}
