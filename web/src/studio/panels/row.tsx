// One row: the datum and its reconstruction, q(z|x) beside the true posterior, the ELBO and the evidence, neighbours.
import { number, withError } from "../../core/numbers";
import { Bracket } from "../bracket";
import { coordinates, Far, Key, Picture, Status, Thumb, Values } from "../parts";
import { choose, measureEvidence, measurePosterior } from "../questions";
import type { Station } from "../station";
import type { Info, Neighbour, RowAnswer } from "../types";

export function Row({ station }: { station: Station }) {
  const info = station.info.value;
  if (!info) return null;
  const row = station.row.value.value;
  return (
    <div class="stack" data-testid="panel-row">
      <h2>
        {row ? `Row ${row.row}` : "Row"} {row && row.label !== null && <span class="tag">{info.label ?? "label"} {row.label}</span>}
        {row && <span class="quiet small"> {row.split}</span>}
      </h2>
      <Chooser station={station} />
      <Status work={station.row} wait="Reading the row …" idle="No row is chosen. Click a point with the tool “Select row”, double-click one with any tool, or type its number." />
      {row && (
        <>
          <Datum row={row} info={info} />
          {row.context && <p class="quiet small">Given {row.context}.</p>}
          <Terms row={row} />
          <Posterior station={station} row={row} />
          <EvidencePart station={station} />
          <Near station={station} title="Nearest in latent space" list={row.neighbours.latent} testid="near-latent" />
          <Near station={station} title="Nearest in data space" list={row.neighbours.data} testid="near-data" />
        </>
      )}
    </div>
  );
}

function Chooser({ station }: { station: Station }) {
  const rows = station.cloud.value?.rows;
  const chosen = station.chosen.value;
  const step = (by: number) => {
    if (!rows?.length) return;
    const at = chosen === null ? -1 : (station.cloud.value?.place.get(chosen) ?? -1);
    void choose(station, rows[(at + by + rows.length) % rows.length] ?? 0);
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const value = new FormData(event.currentTarget as HTMLFormElement).get("row");
    if (value !== null && value !== "") void choose(station, Number(value));
  };
  return (
    <form class="row" onSubmit={submit}>
      <label>
        Row number{" "}
        <input type="number" name="row" min="0" step="1" key={chosen} defaultValue={chosen === null ? "" : String(chosen)} data-testid="row-number" class="short" />
      </label>
      <button type="submit" data-testid="row-go">
        Show
      </button>
      <button type="button" onClick={() => step(-1)} aria-label="previous row">
        ‹
      </button>
      <button type="button" onClick={() => step(1)} aria-label="next row" data-testid="row-next">
        ›
      </button>
    </form>
  );
}

function Datum({ row, info }: { row: RowAnswer; info: Info }) {
  if (info.kind === "image" && info.shape) {
    return (
      <div class="pair">
        <figure>
          <Picture cells={row.x.data} shape={info.shape} label={`row ${row.row}`} />
          <figcaption>x</figcaption>
        </figure>
        <figure>
          <Picture cells={row.reconstruction.data} shape={info.shape} label={`reconstruction of row ${row.row}`} />
          <figcaption>{info.expected.replace("|z", "|z = mean of q")}</figcaption>
        </figure>
      </div>
    );
  }
  return (
    <Values
      names={row.names}
      label="row and reconstruction"
      columns={[
        { name: "x", values: row.x.data, missing: row.missing },
        { name: "reconstruction", values: row.reconstruction.data },
      ]}
    />
  );
}

function Terms({ row }: { row: RowAnswer }) {
  return (
    <>
      <h3>ELBO, nats</h3>
      <table class="terms" data-testid="terms">
        <tbody>
          <tr>
            <th scope="row">E<sub>q</sub>[log p(x|z)]</th>
            <td class="number">{number(row.log_likelihood)}</td>
            <td class="quiet">reconstruction</td>
          </tr>
          <tr>
            <th scope="row">− KL(q ‖ p)</th>
            <td class="number">{number(row.kl === null ? null : -row.kl)}</td>
            <td class="quiet">to the prior</td>
          </tr>
          <tr class="sum">
            <th scope="row">ELBO</th>
            <td class="number" data-testid="elbo">
              {number(row.elbo)}
            </td>
            <td class="quiet">{row.samples} draws</td>
          </tr>
        </tbody>
      </table>
      <p class="small">
        Mean of q: {coordinates(row.z)}
        <br />
        Standard deviation{row.sd_exact ? "" : " (from draws)"}: {coordinates(row.sd)}
      </p>
      {(row.far ?? 0) > 1 && <Far far={row.far} />}
    </>
  );
}

function Posterior({ station, row }: { station: Station; row: RowAnswer }) {
  const found = station.posterior.value.value;
  const wanted = station.wanted.value;
  return (
    <>
      <h3>The true posterior</h3>
      <div class="row">
        <button
          type="button"
          aria-pressed={wanted}
          data-testid="posterior"
          onClick={() => {
            station.wanted.value = !wanted;
            if (wanted) station.posterior.clear();
            else measurePosterior(station);
          }}
        >
          Show p(z|x) on the map
        </button>
        {station.posterior.state.value === "running" && (
          <button type="button" onClick={() => station.posterior.cancel()} data-testid="posterior-cancel">
            Cancel
          </button>
        )}
      </div>
      <Status work={station.posterior} wait="Finding the posterior …" idle={`Not shown. The ellipses on the map are q(z|x) of row ${row.row}, at one and two standard deviations.`} />
      {found?.kind === "grid" && (
        <div data-testid="posterior-grid">
          <p class="key">
            <Key kind="first" words="p(z|x)" /> <Key kind="second" words="q(z|x)" /> <span>regions of 50, 90 and 99 %</span>
          </p>
          <table class="terms">
            <tbody>
              <tr>
                <th scope="row">KL(q ‖ p(z|x))</th>
                <td class="number" data-testid="posterior-kl">
                  {found.kl === null ? "n/a" : withError(found.kl, found.kl_error)}
                </td>
                <td class="quiet">nats, by quadrature</td>
              </tr>
              <tr>
                <th scope="row">log p(x)</th>
                <td class="number">{withError(found.log_evidence, found.error)}</td>
                <td class="quiet">nats, by quadrature</td>
              </tr>
            </tbody>
          </table>
          {found.said && <p class="quiet small">{found.said}</p>}
          <button type="button" data-testid="posterior-zoom" onClick={() => station.show(found.frame)}>
            Zoom in on it
          </button>
        </div>
      )}
      {found?.kind === "samples" && (
        <div data-testid="posterior-samples">
          <p class="key">
            <Key kind="first" words="draws from p(z|x)" dot /> <Key kind="second" words="q(z|x), one and two sd" />
          </p>
          <p class="small">
            {found.said} R̂ {number(found.r_hat, 3)}, effective sample size {number(found.ess, 0)}.
          </p>
          {found.warnings.map((words) => (
            <p class="notice warn">{words}</p>
          ))}
        </div>
      )}
    </>
  );
}

function EvidencePart({ station }: { station: Station }) {
  const rounds = station.rounds.value;
  const { state } = station.evidence;
  const last = rounds.at(-1);
  return (
    <>
      <h3>The evidence log p(x)</h3>
      <div class="row">
        {state.value === "running" ? (
          <button type="button" onClick={() => station.evidence.cancel()} data-testid="evidence-cancel">
            Cancel
          </button>
        ) : (
          <button type="button" onClick={() => measureEvidence(station)} data-testid="evidence">
            {rounds.length ? "Measure again" : "Measure between two sides"}
          </button>
        )}
        {state.value === "running" && (
          <span class="quiet busy">
            round {last?.round ?? 0} of {last?.rounds ?? 8}
          </span>
        )}
      </div>
      {state.value === "cancelled" && <p class="notice" data-testid="evidence-cancelled">Cancelled after {rounds.length} rounds.</p>}
      {state.value === "failed" && <p class="notice warn">{station.evidence.said.value}</p>}
      {state.value === "idle" && <p class="quiet">Rounds of importance sampling and of annealing from below and above, each with draws of its own.</p>}
      {rounds.length > 0 && <Bracket rounds={rounds} />}
    </>
  );
}

function Near({ station, title, list, testid }: { station: Station; title: string; list: Neighbour[]; testid: string }) {
  return (
    <>
      <h3>{title}</h3>
      {list.length === 0 && <p class="quiet">There are no other rows.</p>}
      <div class="neighbours" data-testid={testid}>
        {list.map(({ row, distance, label }) => (
          <button type="button" data-row={row} onClick={() => void choose(station, row)} title={`Row ${row}, distance ${number(distance, 3)}`}>
            <Thumb station={station} row={row} size={44} />
            <span>
              {row}
              {label !== null && <b> {label}</b>}
            </span>
            <span class="quiet">{number(distance)}</span>
          </button>
        ))}
      </div>
    </>
  );
}
