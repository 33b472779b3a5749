// Figure 3: log p(x) = KL + ELBO as a bar that stays level while q moves, and a bracket around log p(x).
import { useEffect, useRef, useState } from "preact/hooks";
import { number, whole, withError } from "../../core/numbers";
import { token } from "../../core/theme";
import type { Job } from "../../core/wire";
import { ticks } from "../../core/view";
import { desk, failed, Latest, ready, wasCancelled, waiting, type Loadable, type Subject } from "../desk";
import { report } from "../snapshot";
import { Choice } from "./approximation";
import { label, line } from "./axes";
import { Drawing } from "./drawing";
import { EllipsePlane } from "./ellipse";
import { approximation, closeUp, move, q, row, stale, type Question } from "./inference";
import { Box, Status } from "./parts";
import { Picker } from "./picker";

interface Sum {
  log_evidence: number;
  log_evidence_error: number;
  kl: number;
  kl_error: number;
  elbo: number;
  elbo_error: number;
  sum: number;
  within?: boolean;
}

type Measured = Sum & { of: Question };

interface Bracket {
  stage: string;
  round: number;
  rounds: number;
  iwae: number;
  iwae_se: number;
  samples: number;
  distributions: number | null;
  tier: string | null;
  lower: number | null;
  upper: number | null;
  lower_se: number | null;
  upper_se: number | null;
  lower_kind: string;
  upper_kind: string;
  seconds: number;
}

export function BarFigure() {
  return (
    <Box
      name="bar"
      title="One bar, two parts"
      caption="Three numbers, each integrated by nodes of its own. The bar’s foot is cut off, so that the KL can be seen: only its top part is drawn to scale."
    >
      {(model, shown) => <Inside model={model} shown={shown} />}
    </Box>
  );
}

function Inside({ model, shown }: { model: Subject; shown: boolean }) {
  const [sum, setSum] = useState<Loadable<Measured>>(waiting("Integrating …"));
  const asked = useRef<Latest<Sum, Question> | null>(null);
  asked.current ??= new Latest<Sum, Question>(
    "bar",
    (found, of) => setSum(ready({ ...found, of })),
    (said) => setSum({ state: "failed", said }),
  );
  const [at, datum, near, old] = [q.value, row.value, closeUp.value, stale.value];
  useEffect(() => {
    if (shown && at && datum !== null && !old) {
      asked.current?.ask({ row: datum, mean: at.mean, sd: at.sd, angle: at.angle });
    }
  }, [shown, at, datum, old]);
  const bracket = useBracket(datum);
  const found = sum.state === "ready" ? sum.value : null;
  useEffect(() => {
    if (!found) return;
    const { of, ...numbers } = found;
    report("bar", { ...of, ...numbers, bracket: bracket.latest });
  }, [found, bracket.latest]);
  const kl = approximation.value;
  return (
    <>
      <Picker model={model} id="bar" />
      <div class={`bar-and-plane${old || found?.of.row !== datum ? " stale" : ""}`}>
        {found ? <LevelBar found={found} bracket={bracket.latest} /> : <Status of={sum} />}
        <div>
          {near.state === "ready" && at && (
            <EllipsePlane
              frame={near.value.frame}
              posterior={near.value.log_posterior}
              q={at}
              move={move}
              testid="bar-ellipse"
              said={found ? `KL ${number(found.kl)}, ELBO ${number(found.elbo)}.` : ""}
              height={(width) => Math.min(width, 270)}
            />
          )}
          {kl.state === "ready" && (
            <div class="choices-row">
              <Choice name="encoder-bar" words="Encoder’s q" of={kl.value.encoder} />
              <Choice name="best-bar" words="Best Gaussian" of={kl.value.best} />
            </div>
          )}
        </div>
      </div>
      {found && <Numbers found={found} stale={old || found.of.row !== datum} />}
      <div class="choices-row">
        {bracket.running ? (
          <button data-testid="bracket-cancel" onClick={bracket.cancel}>
            Stop measuring
          </button>
        ) : (
          <button class="primary" data-testid="bracket" disabled={datum === null} onClick={bracket.start}>
            Measure log p(x) without a grid
          </button>
        )}
        <p class="quiet bracket-said" role="status" data-testid="bracket-said">
          {bracket.said}
        </p>
      </div>
    </>
  );
}

/** The bracket of a row, measured while one watches. */
function useBracket(datum: number | null): {
  latest: Bracket | null;
  running: boolean;
  said: string;
  start: () => void;
  cancel: () => void;
} {
  const [latest, setLatest] = useState<Bracket | null>(null);
  const [ended, setEnded] = useState("");
  const [running, setRunning] = useState(false);
  const job = useRef<Job<Bracket> | null>(null);
  useEffect(() => {
    setLatest(null);
    setEnded("");
    setRunning(false);
    return () => {
      job.current?.cancel();
      job.current = null;
    };
  }, [datum]);
  const start = (): void => {
    setRunning(true);
    setLatest(null);
    setEnded("");
    const mine = desk().run<Bracket>(
      "bracket",
      { row: datum },
      (partial) => job.current === mine && setLatest(partial as Bracket),
    );
    job.current = mine;
    mine.result
      .then((found) => {
        if (job.current === mine) setLatest(found);
      })
      .catch((error: unknown) => {
        if (job.current === mine) setEnded(wasCancelled(error) ? "Stopped." : failed(error).said);
      })
      .finally(() => {
        if (job.current === mine) setRunning(false);
      });
  };
  const stated = latest ? inWords(latest, running) : running ? "Beginning …" : "";
  return {
    latest,
    running,
    said: [stated, ended].filter(Boolean).join(" "),
    start,
    cancel: () => job.current?.cancel(),
  };
}

function inWords(found: Bracket, running: boolean): string {
  const time = `${running ? `round ${found.round} of ${found.rounds}, ` : ""}${number(found.seconds, 1)} s`;
  if (found.lower === null || found.upper === null) {
    return `${withError(found.iwae, found.iwae_se)} nats by ${whole(found.samples)} importance-weighted draws from q, a lower bound in expectation (${time}).`;
  }
  const lower = `${withError(found.lower, found.lower_se)} (${found.lower_kind})`;
  const upper = `${withError(found.upper, found.upper_se)} (${found.upper_kind})`;
  return `log p(x) lies between ${lower} and ${upper} nats, ${found.distributions ? `annealed over ${found.distributions} distributions` : `by ${found.tier}`} (${time}).`;
}

function Numbers({ found, stale }: { found: Sum; stale: boolean }) {
  const rows: [string, string, number, number | null][] = [
    ["KL(q ‖ p(z|x))", "kl", found.kl, found.kl_error],
    ["ELBO", "elbo", found.elbo, found.elbo_error],
    ["KL + ELBO", "sum", found.sum, found.kl_error + found.elbo_error],
    ["log p(x), by its own grid", "evidence", found.log_evidence, found.log_evidence_error],
  ];
  return (
    <table class={`numbers${stale ? " stale" : ""}`} data-testid="bar-numbers">
      <tbody>
        {rows.map(([name, key, value, error]) => (
          <tr class={key}>
            <th scope="row">{name}</th>
            <td class="number">{withError(value, error)} nats</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const SPANS = [4, 10, 25, 60, 150, 400, 1000, 3000, 10_000, 100_000];
const TOP = 0.2; // share of the axis above log p(x)

/** The bar. Its top is always at the same height: log p(x) does not move when q does. */
function LevelBar({ found, bracket }: { found: Sum; bracket: Bracket | null }) {
  const span = SPANS.find((each) => each * 0.85 >= found.kl) ?? found.kl * 2;
  const [low, high] = [found.log_evidence - span, found.log_evidence + (span * TOP) / (1 - TOP)];
  const draw = (context: CanvasRenderingContext2D, width: number, height: number): void => {
    const [top, bottom, left] = [10, height - 26, 62];
    const y = (value: number): number =>
      bottom - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (bottom - top);
    const [begin, end] = [left + 14, left + 14 + Math.min(90, (width - left) * 0.38)];
    drawScale(context, y, [low, high], left, [top, bottom]);
    context.fillStyle = token("accent");
    context.fillRect(begin, y(found.elbo), end - begin, bottom - y(found.elbo));
    context.fillStyle = token("second");
    context.fillRect(begin, y(found.log_evidence), end - begin, y(found.elbo) - y(found.log_evidence));
    cut(context, begin, end, bottom - 9);
    context.strokeStyle = token("ink");
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    line(context, [left, y(found.log_evidence)], [width - 4, y(found.log_evidence)]);
    context.setLineDash([]);
    context.textAlign = "left";
    context.textBaseline = "bottom";
    label(context, "log p(x)", end + 8, y(found.log_evidence) - 3);
    context.textBaseline = "middle";
    const middle = (y(found.elbo) + y(found.log_evidence)) / 2;
    label(context, "KL", end + 8, Math.max(middle, y(found.log_evidence) + 11), token("second"));
    label(
      context,
      "ELBO",
      end + 8,
      Math.min(Math.max((y(found.elbo) + bottom) / 2, middle + 22), bottom - 8),
      token("accent"),
    );
    if (bracket && bracket.lower !== null)
      drawBracket(context, y, bracket, Math.min(width - 16, end + 84), [low, high]);
    context.textAlign = "center";
    context.textBaseline = "top";
    context.fillStyle = token("quiet");
    context.fillText("nats; the foot is cut", width / 2, bottom + 10);
  };
  const said = `A bar from ${number(low)} to ${number(high)} nats, its foot cut off: ELBO up to ${number(found.elbo)}, KL of ${number(found.kl)} on it, up to log p(x) at ${number(found.log_evidence)}.`;
  return (
    <Drawing
      label={
        bracket && bracket.lower !== null
          ? `${said} Bracket from ${number(bracket.lower)} to ${number(bracket.upper)}.`
          : said
      }
      testid="level-bar"
      height={() => 300}
      draw={draw}
    />
  );
}

function drawScale(
  context: CanvasRenderingContext2D,
  y: (value: number) => number,
  [low, high]: [number, number],
  left: number,
  [top, bottom]: [number, number],
): void {
  context.strokeStyle = token("line");
  context.fillStyle = token("quiet");
  context.lineWidth = 1;
  line(context, [left, top], [left, bottom]);
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const each of ticks(low, high, 6)) {
    line(context, [left - 4, y(each)], [left, y(each)]);
    context.fillText(
      number(each, high - low < 10 ? 1 : 0).replace(/^−(\d+)/, (_, digits: string) => `−${whole(Number(digits))}`),
      left - 7,
      y(each),
    );
  }
}

/** A torn edge: the bar goes on below. */
function cut(context: CanvasRenderingContext2D, begin: number, end: number, at: number): void {
  context.strokeStyle = token("paper");
  context.lineWidth = 2.5;
  for (const shift of [0, 6]) {
    context.beginPath();
    for (let x = begin - 2, up = 0; x <= end + 2; x += 7, up = 1 - up) context.lineTo(x, at + shift - 3 * up);
    context.stroke();
  }
}

function drawBracket(
  context: CanvasRenderingContext2D,
  y: (value: number) => number,
  found: Bracket,
  x: number,
  [low, high]: [number, number],
): void {
  context.strokeStyle = token("good");
  context.fillStyle = token("good");
  context.lineWidth = 2.5;
  const ends = [found.lower ?? Number.NEGATIVE_INFINITY, found.upper ?? Number.POSITIVE_INFINITY] as const;
  line(context, [x, y(ends[0])], [x, y(ends[1])]);
  for (const [i, end] of ends.entries()) {
    if (end >= low && end <= high) {
      line(context, [x - 9, y(end)], [x + 9, y(end)]);
      continue;
    }
    const way = i === 0 ? 1 : -1;
    context.beginPath();
    context.moveTo(x - 6, y(end) - 8 * way);
    context.lineTo(x, y(end));
    context.lineTo(x + 6, y(end) - 8 * way);
    context.stroke();
  }
}
