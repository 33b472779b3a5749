/**
 * Whether the page scrolls along with the narration.
 *
 * A reader who scrolls by wheel, finger or key wants to look elsewhere: following ends, the narration does not.
 * `back()` is for the button "return to narration".
 */

/** The part of an event that tells whether it scrolls the page. */
export interface Gesture {
  readonly type: string;
  readonly defaultPrevented?: boolean;
  readonly ctrlKey?: boolean;
  readonly key?: string;
  readonly target?: unknown;
}

const SCROLLING_KEYS = new Set(["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End", " "]);

export class Follow {
  #following = true;
  readonly #onChange: (following: boolean) => void;

  constructor(onChange: (following: boolean) => void = () => undefined) {
    this.#onChange = onChange;
  }

  get following(): boolean {
    return this.#following;
  }

  back(): void {
    this.#set(true);
  }

  /** Hear of a gesture; what a figure or the narration's keys have taken for themselves (`preventDefault`) is none. */
  heard(gesture: Gesture): void {
    if (scrolls(gesture)) this.#set(false);
  }

  /** Listen at `target`, best the window, which hears of an event last; what is returned ends it. */
  attach(target: EventTarget): () => void {
    const listener = (event: Event): void => this.heard(event);
    const types = ["wheel", "touchmove", "keydown"];
    for (const type of types) target.addEventListener(type, listener, { passive: true });
    return () => {
      for (const type of types) target.removeEventListener(type, listener);
    };
  }

  #set(following: boolean): void {
    if (following === this.#following) return;
    this.#following = following;
    this.#onChange(following);
  }
}

function scrolls(gesture: Gesture): boolean {
  if (gesture.defaultPrevented === true) return false;
  if (gesture.type === "wheel") return gesture.ctrlKey !== true; // with Ctrl it zooms
  if (gesture.type === "touchmove") return true;
  return gesture.type === "keydown" && SCROLLING_KEYS.has(gesture.key ?? "") && !takesKeys(gesture.target);
}

/** Sliders, fields and buttons use these keys themselves. */
function takesKeys(target: unknown): boolean {
  const name = (target as { tagName?: unknown } | null | undefined)?.tagName;
  return typeof name === "string" && ["INPUT", "SELECT", "TEXTAREA", "BUTTON"].includes(name.toUpperCase());
}
