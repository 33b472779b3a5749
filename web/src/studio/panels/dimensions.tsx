// The latent dimensions one by one: how much of q's KL each holds, and what changes along it.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { number, withError } from "../../core/numbers";
import { Status, Strip } from "../parts";
import { measureDimensions, traverse } from "../questions";
import type { Station } from "../station";

const fromRow = signal(false);
const picked = signal<number | null>(null);

export function DimensionsPanel({ station }: { station: Station }) {
  const info = station.info.value;
  const ready = station.ready.value;
  useEffect(() => {
    if (ready) measureDimensions(station);
  }, [station, ready]);
  if (!info) return null;
  const found = station.dimensions.value.value;
  const chosen = station.chosen.value;
  const walk = (dim: number) => {
    picked.value = dim;
    traverse(station, dim, fromRow.value ? chosen : null);
  };
  const top = Math.max(...(found?.kl ?? found?.sd_of_mean ?? [1]), 1e-9);
  const traversal = station.traversal.value.value;
  return (
    <div class="stack" data-testid="panel-dimensions">
      <h2>
        Dimensions <span class="quiet">{info.latent}</span>
      </h2>
      <Status work={station.dimensions} wait="Measuring each dimension …" />
      {found && (
        <>
          <p class="quiet small">
            {found.kl ? "Mean KL(q ‖ p) per dimension, nats." : "The KL of this q has no closed form per dimension; bars show the standard deviation of latent means."} Choose one to go along it.
          </p>
          <div class="gauges" data-testid="kl-bars">
            {found.sd_of_mean.map((sd, dim) => {
              const value = found.kl?.[dim] ?? sd;
              return (
                <button type="button" aria-pressed={picked.value === dim} data-testid="kl-bar" data-dim={dim} data-kl={found.kl?.[dim] ?? ""} onClick={() => walk(dim)}>
                  <span>z{dim}</span>
                  <span class="gauge">
                    <span class={found.active[dim] ? "level" : "level off"} style={{ width: `${Math.max((100 * value) / top, 0.5)}%` }} />
                  </span>
                  <span class="number">{found.kl ? withError(value, found.kl_se?.[dim]) : number(value)}</span>
                  <span class="state quiet">{found.active[dim] ? "active" : "unused"}</span>
                </button>
              );
            })}
          </div>
          <h3>Traversal</h3>
          {chosen !== null && (
            <label class="check">
              <input
                type="checkbox"
                checked={fromRow.value}
                onChange={(event) => {
                  fromRow.value = event.currentTarget.checked;
                  if (picked.value !== null) walk(picked.value);
                }}
              />{" "}
              start from row {chosen}
            </label>
          )}
          <Status work={station.traversal} wait="Decoding …" idle="No dimension is chosen." />
          {traversal && (
            <>
              <p class="small">
                z{picked.value} from {number(traversal.values[0])} to {number(traversal.values.at(-1))}, the others at {fromRow.value && chosen !== null ? `the means of row ${chosen}` : "the mean of the latent means"}.
              </p>
              <Strip info={info} steps={{ tiles: traversal.tiles, values: traversal.cells }} captions={traversal.values.map((value) => number(value, 1))} label={`along z${picked.value}`} testid="traversal" />
            </>
          )}
        </>
      )}
    </div>
  );
}
