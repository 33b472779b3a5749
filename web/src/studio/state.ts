// What the whole page shares: the runs, the one or two maps, the tool, the panel, what is said aloud.
import { computed, signal } from "@preact/signals";
import type { Station } from "./station";
import type { RunEntry, Tab, Tool } from "./types";

export const runs = signal<RunEntry[]>([]);
export const stations = signal<Station[]>([]);
/** The map that the panels speak of. */
export const front = signal(0);
export const tool = signal<Tool>("decode");
export const tab = signal<Tab>("decoded");
export const help = signal(false);
/** For the polite live region. */
export const spoken = signal("");

export const current = computed<Station | null>(() => stations.value[front.value] ?? stations.value[0] ?? null);

export function announce(words: string): void {
  spoken.value = words;
}

/** The station itself and, if another map shows the same data, that one too. */
export function linked(station: Station): Station[] {
  const mine = station.info.value;
  return stations.value.filter((each) => {
    const other = each.info.value;
    return each === station || (mine && other && other.kind === mine.kind && other.rows === mine.rows && String(other.shape) === String(mine.shape) && String(other.features) === String(mine.features));
  });
}
