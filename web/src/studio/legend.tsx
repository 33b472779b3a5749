// The whole legend of what points are coloured by: categories with counts that can be switched off, or a bar of numbers.
import { useEffect, useRef } from "preact/hooks";
import { whole } from "../core/numbers";
import { colour, type Ramp } from "../core/pictures";
import { theme } from "../core/theme";
import { volumeRamp } from "./layers";
import { category, MISSING, trace, type Style } from "./paint";
import { short } from "./parts";
import type { Station } from "./station";

export function Legend({ station }: { station: Station }) {
  const colouring = station.colouring.value;
  const column = station.column.value;
  if (!colouring) return <p class="colours quiet" data-testid="legend">Points have one colour; choose a column to colour them by.</p>;
  if (colouring.kind === "number") {
    return (
      <div class="colours" data-testid="legend">
        <Bar ramp="viridis" low={colouring.low} high={colouring.high} name={column} />
        {colouring.values.data.some((value) => !Number.isFinite(value)) && (
          <span class="entry">
            <Mark style={MISSING} /> missing
          </span>
        )}
      </div>
    );
  }
  const hidden = station.hidden.value;
  return (
    <div class="colours" role="group" aria-label={`Legend: ${column}`} data-testid="legend">
      <span class="title">{column}</span>
      {colouring.names.map((name, code) => (
        <button
          type="button"
          class={hidden.has(code) ? "entry off" : "entry"}
          aria-pressed={!hidden.has(code)}
          title={hidden.has(code) ? "Show these points" : "Hide these points"}
          data-testid="legend-entry"
          data-name={name}
          data-count={colouring.counts[code]}
          onClick={() => station.toggle(code)}
        >
          <Mark style={category(code, colouring.names)} />
          <span>{name}</span>
          <span class="count">{whole(colouring.counts[code] ?? 0)}</span>
        </button>
      ))}
    </div>
  );
}

function Mark({ style: { rgb, mark } }: { style: Style }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    context.setTransform(2, 0, 0, 2, 0, 0);
    context.clearRect(0, 0, 14, 14);
    context.beginPath();
    trace(context, mark, 7, 7, 4.4);
    const style = `rgb(${rgb.join(" ")})`;
    if (mark === "ring") {
      context.strokeStyle = style;
      context.lineWidth = 1.8;
      context.stroke();
    } else {
      context.fillStyle = style;
      context.fill();
    }
  }, [rgb, mark]);
  return <canvas ref={canvas} class="mark" width={28} height={28} aria-hidden="true" />;
}

/** A ramp of colours with its ends and its name. */
export function Bar({ ramp, low, high, name }: { ramp: Ramp; low: number; high: number; name: string }) {
  const stops = Array.from({ length: 9 }, (_, k) => `rgb(${colour(k / 8, ramp).join(" ")})`).join(", ");
  return (
    <span class="bar" role="img" aria-label={`${name}: from ${short(low)} to ${short(high)}`} data-testid="colour-bar">
      <span class="title">{name}</span>
      <span>{short(low)}</span>
      <span class="shades" style={{ background: `linear-gradient(90deg, ${stops})` }} />
      <span>{short(high)}</span>
    </span>
  );
}

/** What the background is, in a sentence; empty where there is none. */
export function groundWords(station: Station): string {
  const ground = station.ground.value;
  const volume = station.volume.value?.value;
  if (ground === "lattice" && station.lattice.value) return `Background: ${station.info.value?.expected} at the middle of each cell; cells off the data fade.`;
  return ground === "volume" && volume ? `Background: ${volume.said || "log √det G"}.` : "";
}

/** What the background shows, with its scale. */
export function GroundLegend({ station }: { station: Station }) {
  const ground = station.ground.value;
  const info = station.info.value;
  if (ground === "lattice" && info?.kind === "image") {
    return (
      <p class="colours quiet" data-testid="ground-legend">
        {groundWords(station) || <span class="busy">Background: decoding …</span>}
      </p>
    );
  }
  if (ground !== "volume") return null;
  const volume = station.volume.value?.value;
  const { state, said } = station.volumeState;
  return (
    <div class="colours" data-testid="ground-legend">
      {volume && <Bar ramp={volumeRamp(theme() === "dark")} low={volume.low} high={volume.high} name={volume.said || "log √det G"} />}
      {state.value === "running" && <span class="quiet busy">computing the metric …</span>}
      {state.value === "failed" && <span class="notice warn">{said.value}</span>}
    </div>
  );
}
