// Rows that were selected: how many of each label, what they look like, their ellipses, and a table to keep.
import { whole } from "../../core/numbers";
import { fileName } from "../files";
import { category } from "../paint";
import { Status, Thumb } from "../parts";
import { choose, exportRows, selectedEllipses } from "../questions";
import { tool } from "../state";
import type { Station } from "../station";

const SHOWN = 24;

export function SelectionPanel({ station }: { station: Station }) {
  const selection = station.selection.value;
  const cloud = station.cloud.value;
  const info = station.info.value;
  if (!info || !cloud) return null;
  const name = info.name;
  return (
    <div class="stack" data-testid="panel-selection">
      <h2>
        Selection {selection && <span class="quiet" data-testid="selection-count">{whole(selection.positions.length)} of {whole(cloud.n)} rows</span>}
      </h2>
      {!selection && (
        <>
          <p class="quiet">Nothing is selected. Draw around points with the tool “Lasso”, or hold Shift and use the arrow keys there, then press Enter.</p>
          <div class="row">
            {tool.value !== "lasso" && (
              <button type="button" onClick={() => (tool.value = "lasso")}>
                Take the tool “Lasso”
              </button>
            )}
            <button type="button" onClick={() => void exportRows(station, null, `${fileName(name, "points")}.csv`)} data-testid="csv-all">
              Save all points as CSV
            </button>
          </div>
        </>
      )}
      {selection && (
        <>
          {selection.positions.length === 0 && <p class="quiet">No point lies inside.</p>}
          <div class="row">
            {selection.positions.length > 0 && (
              <>
                <button type="button" onClick={() => void exportRows(station, selection.positions, `${fileName(name, "selection")}.csv`)} data-testid="csv">
                  Save as CSV
                </button>
                <button type="button" aria-pressed={station.ellipses.state.value === "done"} data-testid="ellipses" onClick={() => (station.ellipses.value.value ? station.ellipses.clear() : selectedEllipses(station))}>
                  Posterior ellipses
                </button>
              </>
            )}
            <button
              type="button"
              data-testid="clear-selection"
              onClick={() => {
                station.selection.value = null;
                station.ellipses.clear();
              }}
            >
              Clear
            </button>
          </div>
          <Status work={station.ellipses} wait="Asking for the ellipses …" />
          {station.ellipses.value.value && (
            <p class="quiet small">
              One standard deviation of q(z|x){station.ellipses.value.value.approximate ? ", from draws" : ""}
              {selection.positions.length > 500 ? "; of the first 500 rows" : ""}.
            </p>
          )}
          <Breakdown station={station} positions={selection.positions} />
          <div class="neighbours" data-testid="selection-thumbs">
            {selection.positions.slice(0, SHOWN).map((position) => {
              const row = cloud.rows[position] ?? 0;
              return (
                <button type="button" data-row={row} onClick={() => void choose(station, row)}>
                  <Thumb station={station} row={row} size={44} />
                  <span>
                    {row} <b>{station.labelled(position)}</b>
                  </span>
                </button>
              );
            })}
          </div>
          {selection.positions.length > SHOWN && <p class="quiet small">The first {SHOWN} of {whole(selection.positions.length)} rows.</p>}
        </>
      )}
    </div>
  );
}

function Breakdown({ station, positions }: { station: Station; positions: number[] }) {
  const colouring = station.labels.value?.kind === "category" ? station.labels.value : station.colouring.value;
  if (colouring?.kind !== "category" || positions.length === 0) return null;
  const counts = new Map<number, number>();
  for (const position of positions) {
    const code = colouring.codes.data[position] ?? -1;
    counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  return (
    <div class="gauges still" data-testid="breakdown">
      {sorted.map(([code, count]) => (
        <div class="barrow" data-name={colouring.names[code] ?? "none"} data-count={count}>
          <span>{colouring.names[code] ?? "none"}</span>
          <span class="gauge">
            <span class="level" style={{ width: `${(100 * count) / (sorted[0]?.[1] ?? 1)}%`, background: `rgb(${category(code, colouring.names).rgb.join(" ")})` }} />
          </span>
          <span class="number">
            {whole(count)} · {((100 * count) / positions.length).toFixed(0)} %
          </span>
        </div>
      ))}
    </div>
  );
}
