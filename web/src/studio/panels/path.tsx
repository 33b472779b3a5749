// From A to B: the geodesic beside the straight line, with lengths, energies and what is decoded along both.
import { number, withError } from "../../core/numbers";
import { fileName, savePicture } from "../files";
import { Charts, coordinates, Key, rounded, Status, Strip } from "../parts";
import { stripsPicture } from "../picture";
import { anchor } from "../questions";
import { tool } from "../state";
import type { Station } from "../station";
import type { Anchor, Geodesic, Info } from "../types";

export function Path({ station }: { station: Station }) {
  const info = station.info.value;
  if (!info) return null;
  const [a, b] = station.anchors.value;
  const found = station.path.value.value;
  return (
    <div class="stack" data-testid="panel-path">
      <h2>Path from A to B</h2>
      {tool.value !== "path" && (
        <button type="button" onClick={() => (tool.value = "path")} data-testid="path-tool">
          Take the tool “Path”
        </button>
      )}
      <End station={station} which={0} at={a} />
      <End station={station} which={1} at={b} />
      {(!a || !b) && <p class="quiet">Click two points on the map (or press Enter at the crosshair), or name two rows. Both ends can be dragged.</p>}
      {(a || b) && (
        <div class="row">
          {station.path.state.value === "running" && (
            <button type="button" onClick={() => station.path.cancel()}>
              Cancel
            </button>
          )}
          <button
            type="button"
            onClick={() => {
              station.anchors.value = [null, null];
              station.path.clear();
            }}
          >
            Clear
          </button>
        </div>
      )}
      <Status work={station.path} wait="Finding the geodesic …" />
      {found && <Found station={station} found={found} info={info} />}
    </div>
  );
}

function End({ station, which, at }: { station: Station; which: 0 | 1; at: Anchor | null }) {
  const name = which === 0 ? "A" : "B";
  const set = (row: number) => {
    const cloud = station.cloud.value;
    const position = cloud?.place.get(row);
    if (cloud && position !== undefined) anchor(station, which, { x: cloud.x(position), y: cloud.y(position), row });
    else station.notice.value = `Row ${row} is not among those shown.`;
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const value = new FormData(event.currentTarget as HTMLFormElement).get("row");
    if (value !== null && value !== "") set(Number(value));
  };
  const chosen = station.chosen.value;
  return (
    <form class="row end" onSubmit={submit}>
      <span class="pin">{name}</span>
      <span class="where" data-testid={`end-${name}`}>
        {at ? (at.row === null ? coordinates(station.info.value?.latent === 1 ? [at.x] : [at.x, at.y]) : `row ${at.row}`) : <em class="quiet">not set</em>}
      </span>
      <label>
        <span class="hidden">{name}: row number</span>
        <input type="number" name="row" min="0" step="1" placeholder="row" class="short" data-testid={`row-${name}`} />
      </label>
      <button type="submit">Set</button>
      {chosen !== null && (
        <button type="button" onClick={() => set(chosen)}>
          Row {chosen}
        </button>
      )}
    </form>
  );
}

function Found({ station, found, info }: { station: Station; found: Geodesic; info: Info }) {
  const captions = (lengths: number[]) => lengths.map((at) => number(at, at < 10 ? 2 : 1));
  return (
    <>
      <table class="terms" data-testid="path-table">
        <thead>
          <tr>
            <td />
            <th scope="col" class="number">
              <span class="stroke first" /> geodesic
            </th>
            <th scope="col" class="number">
              <span class="stroke second" /> straight
            </th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">length</th>
            <td class="number" data-testid="length">
              {withError(found.length, found.error)}
            </td>
            <td class="number">{rounded(found.straight_length)}</td>
          </tr>
          <tr>
            <th scope="row">energy</th>
            <td class="number">{rounded(found.energy)}</td>
            <td class="number">{rounded(found.straight_energy)}</td>
          </tr>
          <tr>
            <th scope="row">chord</th>
            <td class="number">{rounded(found.chord)}</td>
            <td />
          </tr>
        </tbody>
      </table>
      <p class={found.converged ? "quiet small" : "notice warn small"} data-testid="path-status">
        {found.converged ? "Converged" : "Not converged"}
        {found.status && found.status !== "converged" ? `: ${found.status}` : ""}. Metric: {found.said}.
      </p>
      <h3>Decoded in equal steps of length</h3>
      {info.kind === "image" ? (
        <>
          <p class="small">Geodesic, by the length gone so far</p>
          <Strip info={info} steps={{ tiles: found.strips.geodesic as never }} captions={captions(found.lengths.geodesic)} label="along the geodesic" testid="strip-geodesic" />
          <p class="small">Straight</p>
          <Strip info={info} steps={{ tiles: found.strips.straight as never }} captions={captions(found.lengths.straight)} label="along the straight line" testid="strip-straight" />
          <button type="button" data-testid="save-strips" onClick={() => void savePicture(stripsPicture(station, found), `${fileName(info.name, "path")}.png`)}>
            Save the strips
          </button>
        </>
      ) : (
        <>
          <p class="key small">
            <Key kind="first" words="geodesic" /> <Key kind="second" words="straight" />
          </p>
          <Charts
            names={found.names}
            testid="path-charts"
            lines={[
              { name: "geodesic", values: found.strips.geodesic, style: "first" },
              { name: "straight", values: found.strips.straight, style: "second" },
            ]}
          />
        </>
      )}
    </>
  );
}
