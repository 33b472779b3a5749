// Pointer and keyboard on a map. Every tool can be worked by either.
import { announce, front, stations, tool } from "./state";
import { anchor, choose, readCell, select } from "./questions";
import type { MapCanvas } from "./map";
import type { Tool } from "./types";

const NEAR = 12; // px in which a point is under the pointer
const STEP = 10; // px that an arrow key moves the crosshair
export const KEYS: Record<string, Tool> = { d: "decode", r: "row", p: "path", l: "lasso", m: "pan" };

/** Listen on a map's top canvas; returns what stops it. */
export function gestures(map: MapCanvas): () => void {
  const { over, station } = map;
  const { view } = station;
  const fingers = new Map<number, [number, number]>();
  let doing: "pan" | "decode" | "lasso" | 0 | 1 | null = null;
  let space = false;
  let corner: [number, number] | null = null; // where a keyboard rectangle begins
  let hoverTimer = 0;
  let readTimer = 0;
  let begun: [number, number] = [0, 0];

  const place = (event: { clientX: number; clientY: number }): [number, number] => {
    const box = over.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const nearest = (px: number, py: number, radius = NEAR): number => {
    const [x, y] = view.at(px, py);
    return station.cloud.value?.nearest(x, y, radius / view.scale, station.visible) ?? -1;
  };
  const rowAt = (position: number): number | undefined => station.cloud.value?.rows[position];
  const changed = () => station.moved();
  const bound = (x: number, y: number): [number, number] => (station.info.value?.latent === 1 ? [x, 0] : [x, y]);
  const decodeAt = (px: number, py: number, time?: number) => {
    const [x, y] = bound(...view.at(px, py));
    station.decode(x, y, time);
    clearTimeout(readTimer);
    readTimer = window.setTimeout(() => settled(), 300);
  };
  const settled = () => {
    readCell(station);
    const at = station.cross.value;
    const far = station.far.value;
    if (!at) return;
    const said = far !== null && far > 1 ? " Off the data." : "";
    const [px, py] = [view.px(at[0]), view.py(at[1])];
    const near = nearest(px, py, 40);
    const row = near < 0 ? "" : ` Nearest row ${rowAt(near)}${station.labelled(near) && `, ${station.labelled(near)}`}.`;
    announce(`${at.map((value) => value.toFixed(2).replace("-", "minus ")).join(", ")}.${row}${said}`);
  };
  const anchorAt = (px: number, py: number): 0 | 1 | null => {
    const found = station.anchors.value.findIndex((each) => each && Math.hypot(view.px(each.x) - px, view.py(each.y) - py) < 18);
    return found === 0 || found === 1 ? found : null;
  };
  const setAnchor = (px: number, py: number, which: 0 | 1, go: boolean) => {
    const [x, y] = bound(...view.at(px, py));
    anchor(station, which, { x, y, row: null }, go);
  };
  const nextAnchor = (): 0 | 1 => {
    const [a, b] = station.anchors.value;
    if (a && b) station.anchors.value = [null, null];
    return a && !b ? 1 : 0;
  };
  const pick = (px: number, py: number) => {
    const position = nearest(px, py, tool.value === "row" ? 24 : NEAR * 2);
    const row = rowAt(position);
    if (position < 0 || row === undefined) announce("No point is near.");
    else void choose(station, row);
  };

  const down = (event: PointerEvent) => {
    over.focus({ preventScroll: true });
    front.value = Math.max(stations.value.indexOf(station), 0);
    over.setPointerCapture(event.pointerId);
    const [px, py] = place(event);
    fingers.set(event.pointerId, [px, py]);
    station.hover.value = null;
    begun = [px, py];
    if (fingers.size > 1) {
      doing = null;
      map.line = [];
      return;
    }
    if (event.button === 1 || event.button === 2 || space || tool.value === "pan") doing = "pan";
    else if (tool.value === "decode") {
      doing = "decode";
      decodeAt(px, py, event.timeStamp);
    } else if (tool.value === "lasso") {
      doing = "lasso";
      map.line = [view.at(px, py)];
    } else if (tool.value === "path") {
      const which = anchorAt(px, py) ?? nextAnchor();
      doing = which;
      setAnchor(px, py, which, false);
    } else doing = null;
    if (event.button === 1) event.preventDefault();
  };
  const move = (event: PointerEvent) => {
    const [px, py] = place(event);
    const before = fingers.get(event.pointerId);
    if (before && fingers.size === 2) pinch(event.pointerId, before, [px, py]);
    else if (before && doing === "pan") {
      view.pan(px - before[0], py - before[1]);
      changed();
    } else if (before && doing === "decode" && !raw) decodeAt(px, py, event.timeStamp);
    else if (before && doing === "lasso") {
      const all = event.getCoalescedEvents();
      for (const each of all.length ? all : [event]) map.line.push(view.at(...place(each)));
      map.mark("over");
    } else if (before && (doing === 0 || doing === 1)) setAnchor(px, py, doing, false);
    else if (!before) hoverAt(px, py, event.pointerType);
    if (before) fingers.set(event.pointerId, [px, py]);
  };
  const pinch = (id: number, [bx, by]: [number, number], [px, py]: [number, number]) => {
    const other = [...fingers].find(([each]) => each !== id)?.[1];
    if (!other) return;
    const [ox, oy] = other;
    const grown = Math.hypot(px - ox, py - oy) / Math.max(Math.hypot(bx - ox, by - oy), 1);
    view.pan((px - bx) / 2, (py - by) / 2);
    view.zoom(grown, (px + ox) / 2, (py + oy) / 2);
    changed();
  };
  const hoverAt = (px: number, py: number, kind: string) => {
    if (kind === "touch") return;
    const position = nearest(px, py);
    const row = rowAt(position);
    if (position < 0 || row === undefined) {
      leave();
      return;
    }
    if (station.hover.value?.position === position) return;
    station.hover.value = { position, row, px: view.px(station.cloud.value?.x(position) ?? 0), py: view.py(station.cloud.value?.y(position) ?? 0) };
    station.hoverEllipse.value = null;
    clearTimeout(hoverTimer);
    hoverTimer = window.setTimeout(async () => {
      void station.fetch([row]);
      const found = await station.ask<NonNullable<typeof station.hoverEllipse.value>>("ellipses", { rows: [row] });
      if (found && station.hover.value?.row === row) station.hoverEllipse.value = found;
    }, 70);
  };
  const leave = () => {
    clearTimeout(hoverTimer);
    station.hover.value = null;
    station.hoverEllipse.value = null;
  };
  const up = (event: PointerEvent) => {
    if (!fingers.delete(event.pointerId)) return;
    const [px, py] = place(event);
    const still = Math.hypot(px - begun[0], py - begun[1]) < 5;
    if (doing === "lasso") finishLine();
    else if (doing === 0 || doing === 1) setAnchor(px, py, doing, true);
    else if (tool.value === "row" && still && event.type === "pointerup" && event.button === 0) pick(px, py);
    doing = null;
  };
  const finishLine = () => {
    const line = map.line;
    map.line = [];
    corner = null;
    if (line.length > 2) select(station, line);
    map.mark("over");
  };
  const wheel = (event: WheelEvent) => {
    event.preventDefault();
    const [px, py] = place(event);
    view.zoom(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0018)), px, py);
    leave();
    changed();
  };

  const key = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) arrows(arrow, event.shiftKey);
    else if (event.key === "+" || event.key === "=") zoom(1.25);
    else if (event.key === "-" || event.key === "_") zoom(0.8);
    else if (event.key === "0") station.reset();
    else if (event.key === "Enter") enter();
    else if (event.key === "Escape") escape();
    else if (event.key === " ") space = true;
    else if (KEYS[event.key]) tool.value = KEYS[event.key] as Tool;
    else return;
    event.preventDefault();
  };
  const zoom = (factor: number) => {
    const at = station.cross.value;
    if (at) view.zoom(factor, view.px(at[0]), view.py(at[1]));
    else view.zoom(factor);
    changed();
  };
  const crossing = (): [number, number] => {
    const at = station.cross.value ?? view.centre;
    return [view.px(at[0]), view.py(at[1])];
  };
  const arrows = ([dx, dy]: [number, number], shift: boolean) => {
    if (tool.value === "pan") {
      view.pan(-dx * 40, -dy * 40);
      changed();
      return;
    }
    const [px, py] = crossing();
    const step = shift && tool.value !== "lasso" ? 1 : STEP;
    const [nx, ny] = [px + dx * step, py + dy * step];
    if (shift && tool.value === "lasso") {
      corner ??= view.at(px, py);
      const [x, y] = view.at(nx, ny);
      map.line = [corner, [x, corner[1]], [x, y], [corner[0], y]];
      station.cross.value = [x, y];
      map.mark("over");
    } else decodeAt(nx, ny);
    const out = [Math.min(nx, 0) || Math.max(nx - view.width, 0), Math.min(ny, 0) || Math.max(ny - view.height, 0)];
    if (out[0] || out[1]) {
      view.pan(-(out[0] ?? 0), -(out[1] ?? 0));
      changed();
    }
  };
  const enter = () => {
    const [px, py] = crossing();
    if (tool.value === "lasso") finishLine();
    else if (tool.value === "path") {
      const which = nextAnchor();
      setAnchor(px, py, which, true);
      announce(which === 0 ? "A is set. Move on and press Enter for B." : "B is set; the geodesic is being found.");
    } else pick(px, py);
  };
  const escape = () => {
    map.line = [];
    corner = null;
    doing = null;
    station.path.cancel();
    station.evidence.cancel();
    if (tool.value === "lasso") station.selection.value = null;
    map.mark("over");
  };
  const release = (event: KeyboardEvent) => {
    if (event.key === " ") space = false;
  };

  // Chromium tells of pointer moves as they come, not once a frame: a picture is decoded sooner
  const raw = "onpointerrawupdate" in over;
  const rawMove = (event: Event) => {
    const pointer = event as PointerEvent;
    if (doing === "decode" && fingers.has(pointer.pointerId) && fingers.size === 1) decodeAt(...place(pointer), pointer.timeStamp);
  };
  const stop = new AbortController();
  const listen = { signal: stop.signal };
  over.addEventListener("pointerdown", down, listen);
  over.addEventListener("pointermove", move, listen);
  if (raw) over.addEventListener("pointerrawupdate", rawMove, listen);
  over.addEventListener("pointerup", up, listen);
  over.addEventListener("pointercancel", up, listen);
  over.addEventListener("pointerleave", leave, listen);
  over.addEventListener("dblclick", (event) => pick(...place(event)), listen);
  over.addEventListener("contextmenu", (event) => event.preventDefault(), listen);
  over.addEventListener("wheel", wheel, { signal: stop.signal, passive: false });
  over.addEventListener("keydown", key, listen);
  over.addEventListener("keyup", release, listen);
  return () => stop.abort();
}

const ARROWS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
