// Figure 1: prior, likelihood and posterior over the plane, while the reader picks the datum.
import { withError } from "../../core/numbers";
import { token } from "../../core/theme";
import type { Tensor } from "../../core/wire";
import type { Subject } from "../desk";
import { Axes, frameOf, line } from "./axes";
import { Drawing } from "./drawing";
import { belief, closeUp, retry, stale, type Belief } from "./inference";
import { Box, Status, Versions } from "./parts";
import { Picker } from "./picker";
import { NAMES, place } from "./plane";

const MAPS = [
  ["prior", "p(z)", "log_prior", "prior p(z)"],
  ["likelihood", "p(x|z)", "log_likelihood", "likelihood p(x|z)"],
  ["posterior", "p(z|x)", "log_posterior", "posterior p(z|x)"],
] as const;

export function BeliefFigure() {
  return (
    <Box
      name="belief"
      title="Prior × likelihood → posterior"
      caption="Each map is shaded from zero to its own largest value. The inset enlarges the small square around the posterior."
    >
      {(model) => <Inside model={model} />}
    </Box>
  );
}

function Inside({ model }: { model: Subject }) {
  const now = belief.value;
  return (
    <>
      <Picker model={model} id="belief" />
      {now.state === "ready" ? <Maps found={now.value} model={model} /> : <Status of={now} retry={retry} />}
    </>
  );
}

function Maps({ found, model }: { found: Belief; model: Subject }) {
  return (
    <div class={stale.value ? "stale" : ""}>
      <div class="maps">
        {MAPS.map(([name, sign, key, heading]) => (
          <div class="map">
            <p class="map-head">{heading}</p>
            <Map name={name} sign={sign} found={found} logs={found[key]} />
          </div>
        ))}
      </div>
      <div class="beside">
        <Versions model={model} of={versions(found)} />
        <p class="reading" data-testid="belief-evidence" aria-live="polite">
          The evidence: log p(x) = <b>{withError(found.log_evidence, found.error)}</b> nats, summed over{" "}
          {found.quadrature}. The posterior is highest at z = {place(found.mode)}.
        </p>
      </div>
    </div>
  );
}

const versions = (found: Belief): [string, Tensor | undefined][] =>
  [
    ["x", found.x],
    ["decoded", found.reconstruction],
  ].filter(([, cells]) => cells) as [string, Tensor][];

const INSET = 0.52; // of a map's side
const LEAST = 7; // pixels of the square that is enlarged

function Map({
  name,
  sign,
  found,
  logs,
}: {
  name: (typeof MAPS)[number][0];
  sign: string;
  found: Belief;
  logs: Tensor;
}) {
  const frame = frameOf(found.frame);
  const near = closeUp.value;
  const draw = (context: CanvasRenderingContext2D, width: number, height: number): void => {
    const axes = Axes.square(frame, width, height, { left: 34, right: 4, top: 4, bottom: 36 });
    axes.shade(context, logs, frame);
    if (name !== "prior" && near.state === "ready")
      enlarge(context, axes, near.value, name === "likelihood" ? near.value.log_likelihood : near.value.log_posterior);
    axes.draw(context, NAMES, [4, 4]);
  };
  return (
    <Drawing
      label={`${sign} over the plane from ${found.frame[0]} to ${found.frame[2]}${name === "prior" ? "" : `, the posterior’s highest point at ${place(found.mode)}`}`}
      testid={`map-${name}`}
      height={(width) => Math.max(60, width - 38 + 40)}
      draw={draw}
    />
  );
}

/** The small square around the posterior, enlarged in the corner that is farthest from it. */
function enlarge(context: CanvasRenderingContext2D, axes: Axes, near: Belief, logs: Tensor): void {
  const part = frameOf(near.frame);
  if ((part.x1 - part.x0) * axes.scale > 0.6 * axes.width) return;
  const side = Math.max(LEAST, (part.x1 - part.x0) * axes.scale);
  const [cx, cy] = [axes.x((part.x0 + part.x1) / 2), axes.y((part.y0 + part.y1) / 2)];
  const large = INSET * axes.width;
  const left = cx < axes.left + axes.width / 2 ? axes.left + axes.width - large - 1 : axes.left + 1;
  const top = cy < axes.top + axes.height / 2 ? axes.top + axes.height - large - 1 : axes.top + 1;
  const square = [cx - side / 2, cy - side / 2, side, side] as const;
  context.strokeStyle = token("second");
  context.lineWidth = 1;
  const corners =
    left > cx === top > cy
      ? ([
          [1, 0],
          [0, 1],
        ] as const)
      : ([
          [0, 0],
          [1, 1],
        ] as const);
  for (const [right, down] of corners)
    line(context, [square[0] + right * side, square[1] + down * side], [left + right * large, top + down * large]);
  new Axes(part, left + large, top + large, { left, top, right: 0, bottom: 0 }).shade(context, logs, part);
  context.lineWidth = 1.25;
  context.strokeRect(...square);
  context.strokeRect(left, top, large, large);
}
