// Figure 6: the plane to drag through, samples of the prior, and a geodesic beside the straight line.
import { useEffect, useRef, useState } from "preact/hooks";
import { number, withError } from "../../core/numbers";
import type { Tensor } from "../../core/wire";
import { cellsOf, desk, dragTo, failed, ready, waiting, words, type Loadable, type Subject } from "../desk";
import { report } from "../snapshot";
import type { Point } from "./drawing";
import { Legend, PlaneMap, type Colours, type Held, type PlanePoints } from "./map";
import { Box, Status, Strip, Versions } from "./parts";
import { usePath, type Path } from "./path";
import { place } from "./plane";

interface Drawn {
  points: Tensor;
  tiles?: Tensor;
  values?: Tensor;
}

const DRAWS = 12;

export function ManifoldFigure() {
  return (
    <Box
      name="plane"
      title="The plane, decoded"
      caption="Each dot is the latent mean of one row. Drag anywhere to decode; A and B are the ends of two paths, and the strips’ pictures are equally far apart by the measure of the decoder."
    >
      {(model) => <Inside model={model} />}
    </Box>
  );
}

function usePoints(model: Subject): Loadable<{ points: PlanePoints; colours: Colours | null }> {
  const [found, setFound] = useState<Loadable<{ points: PlanePoints; colours: Colours | null }>>(
    waiting("Placing the rows in the plane …"),
  );
  useEffect(() => {
    const fetch = async (): Promise<void> => {
      const points = await desk().ask<PlanePoints>("plane", { kind: "dims", i: 0, j: 1 });
      const colours = model.label ? await desk().ask<Colours>("colour", { column: model.label }) : null;
      setFound(ready({ points, colours }));
    };
    fetch().catch((error: unknown) => setFound(failed(error)));
  }, [model]);
  return found;
}

function Inside({ model }: { model: Subject }) {
  const found = usePoints(model);
  if (found.state !== "ready") return <Status of={found} />;
  return <Plane model={model} points={found.value.points} colours={found.value.colours} />;
}

function Plane({ model, points, colours }: { model: Subject; points: PlanePoints; colours: Colours | null }) {
  const [at, setAt] = useState<Record<Held, Point>>(() => start(points));
  const [held, setHeld] = useState<Held>("z");
  const [cells, setCells] = useState<Tensor | undefined>(undefined);
  const [far, setFar] = useState<number | null>(null);
  const [trouble, setTrouble] = useState("");
  const [drawn, setDrawn] = useState<Drawn | null>(null);
  const seed = useRef(0);
  const path = usePath();

  const decode = (to: Point): void =>
    dragTo(
      "plane",
      to,
      (distance, bytes) => {
        setTrouble("");
        setFar(Number.isFinite(distance) ? distance : null);
        setCells(cellsOf(bytes, model));
      },
      setTrouble,
    );
  const move = (which: Held, to: Point, done: boolean): void => {
    setHeld(which);
    setAt((before) => ({ ...before, [which]: to }));
    if (which === "z") decode(to);
    else if (done) path.find(which === "A" ? to : at.A, which === "B" ? to : at.B);
    else path.forget();
  };
  const settle = (which: Held): void => {
    if (which !== "z") path.find(at.A, at.B);
  };
  const draw = async (): Promise<void> => {
    seed.current += 1;
    try {
      setDrawn(await desk().ask<Drawn>("sample", { n: DRAWS, seed: seed.current }));
    } catch (error) {
      setTrouble(words(error));
    }
  };
  useEffect(() => decode(at.z), []);
  const route = path.now.state === "ready" ? path.now.value : null;
  useEffect(() => {
    report("plane", {
      z: at.z,
      a: at.A,
      b: at.B,
      far,
      decoded: cells !== undefined,
      drawn: drawn ? drawn.points.shape[0] : 0,
      geodesic: route && {
        length: route.length,
        error: route.error,
        straight_length: route.straight_length,
        converged: route.converged,
      },
    });
  }, [at, far, cells, drawn, route]);

  const samples = drawn?.tiles ?? drawn?.values;
  return (
    <>
      <div class={`plane-and-picture ${model.kind}`}>
        <PlaneMap
          points={points}
          colours={colours}
          at={at}
          held={held}
          move={move}
          settle={settle}
          path={route}
          drawn={drawn?.points ?? null}
        />
        <div class="side">
          <Versions model={model} of={[["decoded", cells]]} size={112} />
          <p class="reading small" data-testid="plane-z">
            z = {place(at.z)}
          </p>
          {far !== null && far > 1 && (
            <p class="notice warn small" role="status" data-testid="far">
              Off the data: {number(far, 1)} times as far from the nearest row as rows usually are from one another. The
              decoder guesses here.
            </p>
          )}
          {trouble && <p class="notice warn small">{trouble}</p>}
          <Legend colours={colours} name={model.label} />
        </div>
      </div>
      <div class="choices-row">
        <span
          class="radios small"
          role="radiogroup"
          aria-label="What the arrow keys move"
          onKeyDown={(event) => turn(event, held, setHeld)}
        >
          <span class="quiet" aria-hidden="true">
            Keys move
          </span>
          {(["z", "A", "B"] as const).map((each) => (
            <button
              role="radio"
              aria-checked={held === each}
              tabIndex={held === each ? 0 : -1}
              data-testid={`hold-${each}`}
              onClick={() => setHeld(each)}
            >
              {each}
            </button>
          ))}
        </span>
        <button data-testid="sample-prior" onClick={() => void draw()}>
          Sample the prior
        </button>
        <button data-testid="geodesic" onClick={() => path.find(at.A, at.B)}>
          Geodesic from A to B
        </button>
        {(document.body.dataset.pages ?? "").split(" ").includes("studio") && (
          <a class="button" href="/studio" data-testid="open-studio">
            Open in the studio
          </a>
        )}
      </div>
      {samples && (
        <div class="strips" data-testid="draws">
          <span class="strip-name">
            {DRAWS} draws z ~ p(z), <span class="mark-square">▪</span> in the plane
          </span>
          <Strip cells={samples} model={model} label={`${DRAWS} draws from the prior, decoded`} size={42} />
        </div>
      )}
      <Strips now={path.now} model={model} />
    </>
  );
}

function Strips({ now, model }: { now: Loadable<Path> | { state: "none" }; model: Subject }) {
  if (now.state === "none") return null;
  if (now.state !== "ready") return <Status of={now} />;
  const found = now.value;
  const shorter = 100 * (1 - found.length / found.straight_length);
  return (
    <>
      <div class="strips" data-testid="path-strips">
        <span class="strip-name geodesic">geodesic, length {withError(found.length, found.error)}</span>
        <Strip
          cells={found.strips.geodesic}
          model={model}
          label={`Decoded along the geodesic of length ${number(found.length)}`}
          size={42}
        />
        <span class="strip-name straight">straight line, length {number(found.straight_length)}</span>
        <Strip
          cells={found.strips.straight}
          model={model}
          label={`Decoded along the straight line of length ${number(found.straight_length)}`}
          size={42}
        />
      </div>
      <p class="quiet small" data-testid="path-said">
        The geodesic is {number(shorter, shorter < 10 ? 1 : 0)} % shorter than the straight line, measured by the{" "}
        {found.said}.{!found.converged && ` The search has not settled: ${found.status}.`}
      </p>
    </>
  );
}

function turn(event: KeyboardEvent, held: Held, hold: (held: Held) => void): void {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = ["z", "A", "B"] as const;
  const to = (all.indexOf(held) + step + all.length) % all.length;
  hold(all[to] ?? "z");
  (event.currentTarget as HTMLElement)
    .querySelectorAll<HTMLElement>('[role="radio"]')
    [to]?.focus({ preventScroll: true });
}

/** z at the median of the points, A and B at two of them that are far apart. */
function start({ points, frame }: PlanePoints): Record<Held, Point> {
  const count = points.shape[0] ?? 0;
  const at = (i: number): Point => [points.data[2 * i] ?? 0, points.data[2 * i + 1] ?? 0];
  const middle: Point = [((frame[0] ?? -1) + (frame[2] ?? 1)) / 2, ((frame[1] ?? -1) + (frame[3] ?? 1)) / 2];
  if (count < 3) return { z: middle, A: [middle[0] - 1, middle[1]], B: [middle[0] + 1, middle[1]] };
  const order = Array.from({ length: count }, (_, i) => i).sort((i, j) => at(i)[0] - at(j)[0]);
  const pick = (part: number): Point => at(order[Math.floor(part * (count - 1))] ?? 0);
  return { z: pick(0.5), A: pick(0.1), B: pick(0.9) };
}
