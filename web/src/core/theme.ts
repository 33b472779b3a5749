// Light and dark: the system's choice until the reader makes one.
import { signal, effect } from "@preact/signals";

export type Theme = "light" | "dark";
const system = matchMedia("(prefers-color-scheme: dark)");
const chosen = signal<Theme | null>(read());
const systemDark = signal(system.matches);
system.addEventListener("change", () => {
  systemDark.value = system.matches;
});

export const theme = (): Theme => chosen.value ?? (systemDark.value ? "dark" : "light");
export const stillness = matchMedia("(prefers-reduced-motion: reduce)");

export function switchTheme(): void {
  chosen.value = theme() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("vaelid-theme", chosen.value);
  } catch {
    // a browser that keeps nothing
  }
}

function read(): Theme | null {
  try {
    const kept = localStorage.getItem("vaelid-theme");
    return kept === "light" || kept === "dark" ? kept : null;
  } catch {
    return null;
  }
}

effect(() => {
  document.documentElement.dataset.theme = theme();
});

/** A colour of the current theme, for canvases: token("ink"). */
export const token = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
