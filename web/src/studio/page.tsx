// The studio: one map or two, and panels that speak of the one in front.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { whole } from "../core/numbers";
import { switchTheme, theme } from "../core/theme";
import { address, follow, restore } from "./hash";
import { Help } from "./help";
import { MapView } from "./mapview";
import { Decoded } from "./panels/decoded";
import { DimensionsPanel } from "./panels/dimensions";
import { Path } from "./panels/path";
import { Row } from "./panels/row";
import { SelectionPanel } from "./panels/selection";
import { sideBySide } from "./questions";
import { offer } from "./snapshot";
import { announce, current, front, help, runs, spoken, stations, tab, tool } from "./state";
import { Station } from "./station";
import type { RunEntry, Tab, Tool } from "./types";

const TOOLS: [Tool, string, string][] = [
  ["decode", "Decode", "Drag anywhere: what is decoded there follows (D)"],
  ["row", "Select row", "Click a point (R)"],
  ["path", "Path", "Click two points; the geodesic between them is drawn (P)"],
  ["lasso", "Lasso", "Draw around points (L)"],
  ["pan", "Pan", "Drag the map (M)"],
];
const TABS: [Tab, string][] = [
  ["decoded", "Decoded"],
  ["row", "Row"],
  ["path", "Path"],
  ["dimensions", "Dimensions"],
  ["selection", "Selection"],
];

export function Studio() {
  useEffect(() => {
    offer();
    const first = new Station();
    stations.value = [first];
    void first.ask<{ runs: RunEntry[] }>("runs").then((answer) => {
      if (answer) runs.value = answer.runs;
    });
    const stop: (() => void)[] = [];
    void restore(first).then(() => stop.push(follow()));
    return () => {
      for (const each of stop) each();
      for (const each of stations.value) each.close();
    };
  }, []);
  const station = current.value;
  return (
    <div class={stations.value.length > 1 ? "studio two" : "studio"} data-testid="studio">
      <Header />
      {station && <Messages station={station} />}
      <main>
        <div class="left">
          <div class="tools" role="toolbar" aria-label="Tools">
            {TOOLS.map(([name, words, title]) => (
              <button type="button" aria-pressed={tool.value === name} title={title} data-testid={`tool-${name}`} onClick={() => (tool.value = name)}>
                {words}
              </button>
            ))}
          </div>
          <div class="sheets">
            {stations.value.map((each, k) => (
              <MapView key={k} station={each} />
            ))}
          </div>
        </div>
        {station && <Panels station={station} />}
      </main>
      <Help />
      <p class="hidden" aria-live="polite" role="status" data-testid="live">
        {spoken.value}
      </p>
    </div>
  );
}

function Header() {
  const station = current.value;
  const info = station?.info.value;
  const two = stations.value.length > 1;
  const open = runs.value.filter(({ ok }) => ok);
  const copied = useSignal(false);
  const copy = async () => {
    history.replaceState(null, "", address());
    try {
      await navigator.clipboard.writeText(location.href);
      copied.value = true;
      setTimeout(() => (copied.value = false), 2000);
      announce("The link is copied.");
    } catch {
      announce("The address bar holds the link; this browser does not let pages copy.");
    }
  };
  const lesson = (document.body.dataset.pages ?? "lesson").split(" ").includes("lesson");
  return (
    <header>
      <h1>
        Studio <span class="name" data-testid="run-name">{info?.name ?? ""}</span>
      </h1>
      <p class="model quiet" data-testid="model">
        {info ? `${info.latent} ${info.latent === 1 ? "latent" : "latents"} · ${info.prior} · ${info.likelihood} · ${info.posterior} · ${whole(info.rows)} rows` : " "}
      </p>
      <nav aria-label="Page">
        {(two || open.length > 1) && (
          <button
            type="button"
            aria-pressed={two}
            data-testid="side-by-side"
            onClick={() => void sideBySide(two ? null : (open.find(({ index }) => index !== station?.run.value)?.index ?? 0))}
          >
            Side by side
          </button>
        )}
        <button type="button" onClick={() => void copy()} data-testid="copy-link">
          {copied.value ? "Copied" : "Copy link"}
        </button>
        {lesson && (
          <a class="button" href="/lesson" data-testid="to-lesson">
            Lesson
          </a>
        )}
        <button type="button" onClick={switchTheme} data-testid="theme">
          {theme() === "dark" ? "Light" : "Dark"}
        </button>
        <button type="button" onClick={() => (help.value = true)} data-testid="help-open">
          Help
        </button>
      </nav>
    </header>
  );
}

function Messages({ station }: { station: Station }) {
  const gone = stations.value.map((each) => each.gone.value).find(Boolean);
  const notice = station.notice.value;
  return (
    <div class="messages" role="alert">
      {gone && (
        <p class="notice warn" data-testid="gone">
          {gone}
        </p>
      )}
      {!gone && notice && (
        <p class="notice warn" data-testid="notice">
          {notice}{" "}
          <button type="button" onClick={() => (station.notice.value = "")} aria-label="dismiss the message">
            ×
          </button>
        </p>
      )}
    </div>
  );
}

function Panels({ station }: { station: Station }) {
  const two = stations.value.length > 1;
  const now = tab.value;
  const move = (event: KeyboardEvent) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!by) return;
    event.preventDefault();
    const at = TABS.findIndex(([name]) => name === now);
    const [next] = TABS[(at + by + TABS.length) % TABS.length] ?? ["decoded"];
    tab.value = next as Tab;
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <aside class="panels" aria-label="What the map tells">
      {two && (
        <div class="row which" role="group" aria-label="Which map">
          {stations.value.map((each, k) => (
            <button type="button" aria-pressed={front.value === k} onClick={() => (front.value = k)} data-testid={`front-${k}`}>
              {each.info.value?.name ?? `run ${k + 1}`}
            </button>
          ))}
        </div>
      )}
      <div class="tabs" role="tablist" aria-label="Panels" onKeyDown={move}>
        {TABS.map(([name, words]) => (
          <button type="button" role="tab" id={`tab-${name}`} aria-selected={now === name} aria-controls="panel" tabIndex={now === name ? 0 : -1} data-testid={`tab-${name}`} onClick={() => (tab.value = name)}>
            {words}
          </button>
        ))}
      </div>
      <div class="panel" role="tabpanel" id="panel" aria-labelledby={`tab-${now}`} tabIndex={0}>
        {!station.info.value && <p class="quiet">{station.failed.value ? "No run is open." : "Opening the run …"}</p>}
        {now === "decoded" && <Decoded station={station} />}
        {now === "row" && <Row station={station} />}
        {now === "path" && <Path station={station} />}
        {now === "dimensions" && <DimensionsPanel station={station} />}
        {now === "selection" && <SelectionPanel station={station} />}
      </div>
    </aside>
  );
}
