// The evidence round by round: bounds that come closer, each with its error.
import { number, withError } from "../core/numbers";
import { ticks } from "../core/view";
import { Key } from "./parts";
import type { Evidence } from "./types";

const WIDTH = 380;
const HEIGHT = 210;
const LEFT = 52;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 42;

interface Spot {
  round: number;
  value: number;
  se: number;
}

const spots = (rounds: Evidence[], value: (each: Evidence) => number | null, se: (each: Evidence) => number | null, fresh: (each: Evidence) => boolean): Spot[] =>
  rounds.flatMap((each) => {
    const found = value(each);
    return found === null || !fresh(each) ? [] : [{ round: each.round, value: found, se: se(each) ?? 0 }];
  });

export function Bracket({ rounds }: { rounds: Evidence[] }) {
  const last = rounds.at(-1);
  if (!last) return null;
  const sampled = (each: Evidence) => each.distributions === null;
  const annealed = (each: Evidence) => each.distributions !== null;
  const lower = spots(rounds, (each) => each.lower, (each) => each.lower_se, annealed);
  const upper = spots(rounds, (each) => each.upper, (each) => each.upper_se, annealed);
  const iwae = spots(rounds, (each) => each.iwae, (each) => each.iwae_se, sampled);
  const elbo = spots(rounds, (each) => each.elbo, (each) => each.elbo_se, sampled);
  const all = [...lower, ...upper, ...iwae, ...elbo].flatMap(({ value, se }) => [value - se, value + se]);
  let low = Math.min(...all);
  let high = Math.max(...all);
  const margin = Math.max((high - low) * 0.08, 0.05);
  low -= margin;
  high += margin;
  const count = Math.max(last.rounds, rounds.length);
  const x = (round: number) => LEFT + ((WIDTH - LEFT - RIGHT) * (round - 0.5)) / count;
  const y = (value: number) => TOP + ((HEIGHT - TOP - BOTTOM) * (high - value)) / (high - low || 1);
  const name = (each: Evidence) => (each.distributions === null ? `K ${each.samples}` : each.distributions ? `T ${each.distributions}` : "direct");
  const said = `After round ${last.round} of ${last.rounds}: lower side ${number(last.lower ?? last.iwae)}, upper side ${number(last.upper)} nats`;
  return (
    <div data-testid="bracket" data-rounds={rounds.length}>
      <svg class="bracket" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={said}>
        {ticks(low, high, 4).map((at) => (
          <g>
            <line class="rule" x1={LEFT} x2={WIDTH - RIGHT} y1={y(at)} y2={y(at)} />
            <text x={LEFT - 6} y={y(at) + 4} text-anchor="end">
              {number(at, high - low < 4 ? (high - low < 0.4 ? 2 : 1) : 0)}
            </text>
          </g>
        ))}
        {rounds.map((each) => (
          <text x={x(each.round)} y={HEIGHT - BOTTOM + 16} text-anchor="middle">
            {name(each)}
          </text>
        ))}
        <text x={LEFT + (WIDTH - LEFT - RIGHT) / 2} y={HEIGHT - 4} text-anchor="middle">
          {`rounds: K samples, then ${rounds.some((each) => each.distributions) ? "T annealing distributions" : "both sides"}`}
        </text>
        <text transform={`translate(11 ${TOP + (HEIGHT - TOP - BOTTOM) / 2}) rotate(-90)`} text-anchor="middle">
          nats
        </text>
        <Series found={elbo} x={x} y={y} kind="elbo" />
        <Series found={iwae} x={x} y={y} kind="iwae" />
        <Series found={lower} x={x} y={y} kind="lower" />
        <Series found={upper} x={x} y={y} kind="upper" />
      </svg>
      <p class="key small">
        <Key kind="elbo" words="ELBO" /> <Key kind="iwae" words="L_K" /> <Key kind="lower" words="lower side" /> <Key kind="upper" words="upper side" />
      </p>
      <table class="terms" data-testid="bracket-table">
        <tbody>
          <tr>
            <th scope="row">ELBO</th>
            <td class="number">{withError(last.elbo, last.elbo_se)}</td>
            <td class="quiet">{last.samples} draws</td>
          </tr>
          <tr>
            <th scope="row">L_K</th>
            <td class="number">{withError(last.iwae, last.iwae_se)}</td>
            <td class="quiet">K = {last.samples}</td>
          </tr>
          {last.lower !== null && (
            <tr>
              <th scope="row">lower side</th>
              <td class="number">{withError(last.lower, last.lower_se)}</td>
              <td class="quiet">{last.lower_kind}</td>
            </tr>
          )}
          {last.upper !== null && (
            <tr>
              <th scope="row">upper side</th>
              <td class="number">{withError(last.upper, last.upper_se)}</td>
              <td class="quiet">{last.upper_kind}</td>
            </tr>
          )}
        </tbody>
      </table>
      <p class="quiet small">
        {number(last.seconds, 1)} s{last.distributions ? `, ${last.distributions} distributions` : ""}.
      </p>
      {last.warnings.map((words) => (
        <p class="notice warn small">{words}</p>
      ))}
    </div>
  );
}

function Series({ found, x, y, kind }: { found: Spot[]; x: (round: number) => number; y: (value: number) => number; kind: string }) {
  return (
    <g class={kind}>
      <polyline points={found.map(({ round, value }) => `${x(round)},${y(value)}`).join(" ")} />
      {found.map(({ round, value, se }) => (
        <>
          <line x1={x(round)} x2={x(round)} y1={y(value - se)} y2={y(value + se)} />
          <circle cx={x(round)} cy={y(value)} r="3.2" />
        </>
      ))}
    </g>
  );
}
