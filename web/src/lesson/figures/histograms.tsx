// Two histograms over one axis: estimates of the same gradient by two ways.
import { number } from "../../core/numbers";
import { token } from "../../core/theme";
import { ticks } from "../../core/view";
import { label, line } from "./axes";
import { Drawing } from "./drawing";
import type { Gradients } from "./gradients";

const BINS = 61;
const TAIL = 0.005; // share of the wider estimates that may lie beyond each end of the axis

export function Histograms({ found }: { found: Gradients }) {
  const { pathwise, baseline, exact } = found;
  const [low, high] = ends([...pathwise.estimates.data, ...baseline.estimates.data], exact);
  const rows = [
    { name: "through z", values: pathwise.estimates.data, colour: "accent" },
    { name: "score function, with a baseline", values: baseline.estimates.data, colour: "second" },
  ] as const;
  const beyond = rows.map(({ values }) => values.filter((value: number) => value < low || value > high).length);
  const draw = (context: CanvasRenderingContext2D, width: number, height: number): void => {
    const [left, right, bottom] = [8, width - 8, height - 36];
    const x = (value: number): number => left + ((value - low) / (high - low)) * (right - left);
    const tall = bottom / rows.length;
    for (const [i, { name, values, colour }] of rows.entries()) {
      const foot = tall * (i + 1);
      const counts = binned(values, low, high);
      const most = Math.max(...counts, 1);
      context.fillStyle = token(colour);
      for (const [bin, count] of counts.entries()) {
        const up = (count / most) * (tall - 24);
        context.fillRect(left + (bin * (right - left)) / BINS, foot - up, (right - left) / BINS + 0.4, up);
      }
      context.strokeStyle = token("line");
      context.lineWidth = 1;
      line(context, [left, foot], [right, foot]);
      context.textAlign = "left";
      context.textBaseline = "top";
      label(context, name, left + 4, foot - tall + 6, token(colour));
    }
    context.strokeStyle = token("ink");
    context.lineWidth = 1.25;
    context.setLineDash([5, 4]);
    line(context, [x(exact), 4], [x(exact), bottom]);
    context.setLineDash([]);
    const far = x(exact) > width - 60;
    context.textAlign = far ? "right" : "left";
    label(context, "exact", x(exact) + (far ? -5 : 5), 6);
    context.fillStyle = token("quiet");
    context.textAlign = "center";
    for (const each of ticks(low, high, 6))
      context.fillText(
        String(Number(each.toPrecision(6))).replace("-", "−"),
        Math.min(Math.max(x(each), 14), width - 14),
        bottom + 4,
      );
    context.fillText("estimate from one draw, nats per unit of z₁", width / 2, bottom + 20);
  };
  const hidden = beyond.reduce((sum, each) => sum + each, 0);
  return (
    <>
      <Drawing
        label={`Histograms of ${found.samples} estimates: through z with mean ${number(pathwise.mean)} and variance ${number(pathwise.variance)}, by the score function with a baseline with mean ${number(baseline.mean)} and variance ${number(baseline.variance)}; exact ${number(exact)}.`}
        testid="histograms"
        height={() => 200}
        draw={draw}
      />
      {hidden > 0 && (
        <p class="quiet small">
          Beyond the axis: {beyond[0]} through z, {beyond[1]} by the score function with a baseline.
        </p>
      )}
    </>
  );
}

function ends(values: number[], exact: number): [number, number] {
  const sorted = values.sort((a, b) => a - b);
  const low = Math.min(sorted[Math.floor(TAIL * sorted.length)] ?? -1, exact);
  const high = Math.max(sorted[Math.ceil((1 - TAIL) * sorted.length) - 1] ?? 1, exact);
  const room = 0.05 * (high - low) || 1;
  return [low - room, high + room];
}

function binned(values: ArrayLike<number>, low: number, high: number): number[] {
  const counts = new Array<number>(BINS).fill(0);
  for (let i = 0; i < values.length; i++) {
    const bin = Math.floor((((values[i] ?? 0) - low) / (high - low)) * BINS);
    if (bin >= 0 && bin < BINS) counts[bin] = (counts[bin] ?? 0) + 1;
  }
  return counts;
}
