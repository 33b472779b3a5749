// What is decoded where the crosshair is, and draws from the prior.
import { useEffect, useRef } from "preact/hooks";
import { signal } from "@preact/signals";
import { paint } from "../../core/pictures";
import { fileName, savePicture } from "../files";
import { coordinates, Far, Status, Strip, Values } from "../parts";
import { drawFromPrior } from "../questions";
import type { Station } from "../station";

const seed = signal(0);
const DRAWS = 11; // at once: a row of them

export function Decoded({ station }: { station: Station }) {
  const info = station.info.value;
  const decoded = station.decoded.value;
  if (!info) return null;
  const draws = station.draws.value.value;
  return (
    <div class="stack" data-testid="panel-decoded">
      <h2>
        Decoded <span class="quiet">{info.expected}</span>
      </h2>
      {!decoded && <p class="quiet">Drag anywhere on the map, or move the crosshair with the arrow keys: what is decoded there appears here.</p>}
      {info.kind === "image" && info.shape && <Screen station={station} shape={info.shape} shown={decoded !== null} />}
      {decoded && (
        <>
          <p data-testid="decoded-at">
            at {info.latent === 1 ? coordinates([decoded.x]) : coordinates([decoded.x, decoded.y])}
            {info.latent > 2 && station.flat.value && <span class="quiet"> on {station.flat.value.axes.join(", ")}</span>}
          </p>
          <Far far={decoded.far} />
          {info.kind === "table" && info.features && (
            <Values names={info.features} columns={[{ name: info.expected, values: new Float32Array(decoded.cells) }]} label="decoded row" />
          )}
          {info.kind === "image" && (
            <button type="button" onClick={() => void saveScreen(station)} data-testid="save-decoded">
              Save the picture
            </button>
          )}
          {info.latent > 2 && station.cell.value.value && (
            <details>
              <summary>All {info.latent} latents here</summary>
              <p class="small">z = {coordinates(station.cell.value.value.z)}</p>
            </details>
          )}
        </>
      )}
      {info.context && <p class="quiet small">Decoded given {info.context}, the typical context.</p>}
      <h3>Draws from the prior</h3>
      <p class="quiet small">z ~ p(z), then {info.expected}; rings on the map show where they lie.</p>
      <div class="row">
        <button
          type="button"
          data-testid="draw-prior"
          onClick={() => {
            seed.value++;
            drawFromPrior(station, DRAWS, seed.value);
          }}
        >
          Draw eleven
        </button>
        {draws && (
          <button type="button" onClick={() => station.draws.clear()}>
            Clear
          </button>
        )}
      </div>
      <Status work={station.draws} wait="Drawing …" />
      {draws && <Strip info={info} steps={draws} captions={Array.from({ length: DRAWS }, (_, k) => String(k + 1))} label="draws from the prior" testid="draws" />}
    </div>
  );
}

/** The picture that follows the pointer. */
export function Screen({ station, shape, shown, small }: { station: Station; shape: number[]; shown: boolean; small?: boolean }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const screen = canvas.current;
    if (!screen) return;
    station.screens.add(screen);
    const last = station.decoded.peek();
    if (last) paint(screen, new Uint8Array(last.cells), shape);
    return () => {
      station.screens.delete(screen);
    };
  }, [station, shape]);
  const [height = 1, width = 1] = shape;
  return (
    <canvas
      ref={canvas}
      class={small ? "picture inset" : "picture screen"}
      role="img"
      aria-label="decoded picture"
      hidden={!shown}
      width={width}
      height={height}
      style={{ aspectRatio: `${width} / ${height}` }}
      data-testid={small ? "inset" : "screen"}
    />
  );
}

async function saveScreen(station: Station): Promise<void> {
  const last = station.decoded.value;
  const shape = station.info.value?.shape;
  if (!last || !shape) return;
  const canvas = document.createElement("canvas");
  paint(canvas, new Uint8Array(last.cells), shape);
  await savePicture(canvas, `${fileName(station.info.value?.name ?? "run", "decoded", last.x.toFixed(3), last.y.toFixed(3))}.png`);
}
