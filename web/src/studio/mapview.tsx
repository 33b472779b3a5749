// One map with what belongs to it: what it shows, the canvases, hover, legend.
import { useEffect, useRef } from "preact/hooks";
import { whole } from "../core/numbers";
import { drawing, fileName, save, savePicture } from "./files";
import { gestures } from "./gestures";
import { GroundLegend, Legend } from "./legend";
import { MapCanvas } from "./map";
import { Screen } from "./panels/decoded";
import { Thumb } from "./parts";
import { mapPicture } from "./picture";
import { announce, current, front, runs, stations, tool } from "./state";
import type { Station } from "./station";
import { mapSvg } from "./svg";
import type { Ground, PlaneKey } from "./types";

export function MapView({ station }: { station: Station }) {
  const holder = useRef<HTMLDivElement>(null);
  const axes = useRef<HTMLCanvasElement>(null);
  const plot = useRef<HTMLCanvasElement>(null);
  const over = useRef<HTMLCanvasElement>(null);
  const cross = useRef<HTMLDivElement>(null);
  const map = useRef<MapCanvas | null>(null);
  useEffect(() => {
    if (!holder.current || !axes.current || !plot.current || !over.current || !cross.current) return;
    const made = new MapCanvas(station, axes.current, plot.current, over.current, cross.current);
    map.current = made;
    const fit = () => holder.current && made.resize(holder.current.clientWidth, holder.current.clientHeight);
    const watch = new ResizeObserver(fit);
    watch.observe(holder.current);
    fit();
    const stop = gestures(made);
    return () => {
      stop();
      watch.disconnect();
      made.dispose();
    };
  }, [station]);
  const info = station.info.value;
  const pair = stations.value.length > 1;
  const chosen = current.value === station;
  const plane = station.flat.value;
  const file = fileName(info?.name ?? "map", station.column.value);
  return (
    <section class={pair && chosen ? "map chosen" : "map"} aria-label={info ? `Map of ${info.name}` : "Map"} data-testid="map">
      <Choices station={station} pair={pair} />
      {plane?.said && (
        <p class="slice" data-testid="slice">
          {plane.said}
        </p>
      )}
      <div class={info?.latent === 1 ? "holder line" : "holder"} ref={holder}>
        <canvas ref={axes} class="axes" aria-hidden="true" />
        <canvas ref={plot} class="plot" aria-hidden="true" />
        <canvas
          ref={over}
          class={`over ${tool.value}`}
          tabIndex={0}
          role="application"
          aria-label={`Map of latent means${info ? ` of ${info.name}, ${whole(info.shown)} points` : ""}. Arrow keys move the crosshair and decode, plus and minus zoom, zero shows all, Enter picks with the tool ${tool.value}, D R P L M change the tool, Escape cancels.`}
          data-testid="canvas"
          onFocus={() => (front.value = Math.max(stations.value.indexOf(station), 0))}
        />
        <div class="window" aria-hidden="true">
          <div ref={cross} class="cross" hidden>
            <i />
            <i />
            <i />
            <i />
          </div>
        </div>
        <Hover station={station} />
        {info?.kind === "image" && info.shape && <Screen station={station} shape={info.shape} shown={station.any.value} small />}
        {station.off.value && <span class="flag warn" data-testid="far-flag">off the data</span>}
        {station.failed.value ? (
          <p class="veil notice warn" data-testid="failed">
            {station.failed.value}
          </p>
        ) : (
          !station.ready.value && <p class="veil quiet busy">Opening the run and encoding its rows …</p>
        )}
        {station.ready.value && station.cloud.value?.n === 0 && <p class="veil notice">There are no rows to show ({info?.gone}); points can be decoded all the same.</p>}
        <span class="zoom">
          <button type="button" aria-label="zoom in" title="Zoom in (+)" data-testid="zoom-in" onClick={() => zoom(station, 1.4)}>
            +
          </button>
          <button type="button" aria-label="zoom out" title="Zoom out (−)" data-testid="zoom-out" onClick={() => zoom(station, 1 / 1.4)}>
            −
          </button>
          <button type="button" aria-label="show all points" title="Show all points (0)" data-testid="zoom-all" onClick={() => station.reset()}>
            ⤢
          </button>
          <button
            type="button"
            class="format"
            aria-label="save the map as PNG"
            title="Save the map as PNG"
            data-testid="png"
            onClick={() => map.current && void savePicture(mapPicture(station, map.current), `${file}.png`).then(() => announce("The map is saved as a picture."))}
          >
            PNG
          </button>
          <button
            type="button"
            class="format"
            aria-label="save the map as SVG"
            title="Save the map as SVG, with lines, points and text that can be edited"
            data-testid="svg"
            onClick={() => {
              if (!map.current) return;
              save(drawing(mapSvg(station, map.current)), `${file}.svg`);
              announce("The map is saved as a drawing.");
            }}
          >
            SVG
          </button>
        </span>
      </div>
      <p class="count quiet small" data-testid="shown">
        {info ? (info.sample ?? `${whole(info.shown)} rows`) : " "}
        {info?.context ? ` · decoded given ${info.context}` : ""}
      </p>
      {station.ready.value && <Legend station={station} />}
      {station.ready.value && <GroundLegend station={station} />}
    </section>
  );
}

function zoom(station: Station, factor: number): void {
  station.view.zoom(factor);
  station.moved();
}

/** Which run, which plane, which colours, which background. */
function Choices({ station, pair }: { station: Station; pair: boolean }) {
  const info = station.info.value;
  const plane = station.plane.value;
  const dims = plane.kind === "dims";
  const look = (key: PlaneKey) => void station.lookAt(key);
  const options = Array.from({ length: info?.latent ?? 0 }, (_, dim) => dim);
  return (
    <div class="choices">
      {(pair || runs.value.length > 1) && (
        <label>
          <span>Run</span>
          <select value={station.run.value} data-testid="run" onChange={(event) => void station.open(Number(event.currentTarget.value))}>
            {runs.value.map(({ index, name, ok }) => (
              <option value={index}>
                {name}
                {ok ? "" : " (cannot be opened)"}
              </option>
            ))}
          </select>
        </label>
      )}
      <label>
        <span>Colour</span>
        <select value={station.column.value} data-testid="colour" disabled={!info} onChange={(event) => void station.colourBy(event.currentTarget.value)}>
          <option value="">none</option>
          {info?.columns.map(({ name }) => (
            <option value={name}>{name}</option>
          ))}
        </select>
      </label>
      <label>
        <span>Background</span>
        <select value={station.ground.value} data-testid="ground" disabled={!info} onChange={(event) => (station.ground.value = event.currentTarget.value as Ground)}>
          {info?.kind !== "table" && <option value="lattice">decodings</option>}
          <option value="volume">metric volume</option>
          <option value="none">none</option>
        </select>
      </label>
      {info && info.latent > 2 && (
        <>
          <label>
            <span>Plane</span>
            <select
              value={plane.kind}
              data-testid="plane"
              onChange={(event) => {
                const kind = event.currentTarget.value as PlaneKey["kind"];
                const first = info.planes.find((each) => each.kind === kind) ?? { i: 0, j: 1 };
                look({ kind, i: first.i, j: first.j });
              }}
            >
              {info.planes.some((each) => each.kind === "pca") && <option value="pca">PCA</option>}
              <option value="dims">dimensions</option>
            </select>
          </label>
          {dims &&
            (["i", "j"] as const).map((which) => (
              <label>
                <span>{which === "i" ? "across" : "up"}</span>
                <select value={plane[which]} data-testid={`dim-${which}`} onChange={(event) => look({ ...plane, [which]: Number(event.currentTarget.value) })}>
                  {options.map((dim) => (
                    <option value={dim} disabled={dim === (which === "i" ? plane.j : plane.i)}>
                      z{dim}
                      {info.active[dim] === false ? " (unused)" : ""}
                    </option>
                  ))}
                </select>
              </label>
            ))}
        </>
      )}
    </div>
  );
}

function Hover({ station }: { station: Station }) {
  const hover = station.hover.value;
  if (!hover) return null;
  const { width, height } = station.view;
  const style = {
    left: hover.px > width / 2 ? "auto" : `${hover.px + 62}px`,
    right: hover.px > width / 2 ? `${width - hover.px + 16}px` : "auto",
    top: hover.py > height / 2 ? "auto" : `${hover.py + 14}px`,
    bottom: hover.py > height / 2 ? `${height - hover.py + 54}px` : "auto",
  };
  const colouring = station.colouring.value;
  const label = station.labelled(hover.position);
  const value = colouring?.kind === "number" ? colouring.values.data[hover.position] : undefined;
  return (
    <div class="hover" style={style} data-testid="hover" data-row={hover.row}>
      <Thumb station={station} row={hover.row} size={64} />
      <span>
        row {hover.row}
        {label && (
          <>
            <br />
            <b>{label}</b>
          </>
        )}
        {value !== undefined && (
          <>
            <br />
            {station.column.value} {value.toPrecision(4)}
          </>
        )}
      </span>
    </div>
  );
}
