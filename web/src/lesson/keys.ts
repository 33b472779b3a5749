// The narration's keys. What a figure or a control has taken for itself is left alone.
import { helpOpen } from "./help";
import { back, captions, faster, step, stepSentence, toggle } from "./state";

const ACTIONS: Record<string, () => void> = {
  " ": toggle,
  k: toggle,
  ArrowLeft: () => step(-1),
  j: () => step(-1),
  ArrowRight: () => step(1),
  l: () => step(1),
  "shift ArrowLeft": () => stepSentence(-1),
  "shift ArrowRight": () => stepSentence(1),
  r: back,
  c: () => (captions.value = !captions.value),
  "<": () => faster(-1),
  ">": () => faster(1),
  "?": () => (helpOpen.value = true),
};

/** Listen until the returned function is called. */
export function listenToKeys(): () => void {
  document.addEventListener("keydown", pressed);
  return () => document.removeEventListener("keydown", pressed);
}

function pressed(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || helpOpen.value) return;
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest("input, select, textarea, [role=application], dialog")) return;
  if (event.key === " " && target.closest("button, a, summary")) return;
  if (event.key.startsWith("Arrow") && target.closest("[role=radiogroup], [role=listbox], .display[tabindex]")) return;
  const key = event.shiftKey && event.key.startsWith("Arrow") ? `shift ${event.key}` : event.key;
  const action = ACTIONS[key];
  if (!action) return;
  event.preventDefault();
  action();
}
