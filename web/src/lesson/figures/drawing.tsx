// A canvas that follows its width, the theme and the screen's pixels, and can be taken hold of.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { theme } from "../../core/theme";
import { prepared } from "../../core/view";

export type Point = [number, number];
/** What a drag does with each new position; `done` when it is let go. */
export interface Grip {
  move(at: Point): void;
  done?(): void;
}

interface Props {
  label: string;
  testid: string;
  /** Height in CSS pixels, of the width. */
  height: (width: number) => number;
  draw: (context: CanvasRenderingContext2D, width: number, height: number) => void;
  /** Begin a drag at a point in CSS pixels, or null where there is nothing to take hold of. */
  grab?: (at: Point, width: number, height: number) => Grip | null;
  /** A key for the figure; true if it was taken. */
  press?: (event: KeyboardEvent) => boolean;
  hover?: (at: Point | null, width: number, height: number) => void;
}

export function Drawing({ label, testid, height, draw, grab, press, hover }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const grip = useRef<Grip | null>(null);
  const tall = Math.round(height(width));
  const taken = useRef(grab);
  taken.current = grab;
  void theme(); // drawn anew when it changes

  useEffect(() => {
    const box = canvas.current?.parentElement;
    if (!box) return;
    const measured = new ResizeObserver(() => setWidth(Math.floor(box.clientWidth)));
    measured.observe(box);
    setWidth(Math.floor(box.clientWidth));
    return () => measured.disconnect();
  }, []);

  useLayoutEffect(() => {
    if (!canvas.current || width < 2) return;
    const context = prepared(canvas.current, width, tall);
    context.clearRect(0, 0, width, tall);
    context.font = FONT;
    draw(context, width, tall);
  });

  // A finger on something that can be moved moves it; elsewhere it scrolls the page.
  useEffect(() => {
    const here = canvas.current;
    if (!here) return;
    const touched = (event: TouchEvent): void => {
      const touch = event.touches[0];
      if (!touch || event.touches.length > 1) return;
      const box = here.getBoundingClientRect();
      if (taken.current?.([touch.clientX - box.left, touch.clientY - box.top], box.width, box.height))
        event.preventDefault();
    };
    here.addEventListener("touchstart", touched, { passive: false });
    return () => here.removeEventListener("touchstart", touched);
  }, []);

  const at = (event: PointerEvent): Point => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const leave = (): void => {
    grip.current?.done?.();
    grip.current = null;
  };
  return (
    <div class="drawing">
      <canvas
        ref={canvas}
        role={grab || press ? "application" : "img"}
        tabIndex={grab || press ? 0 : undefined}
        aria-label={label}
        data-testid={testid}
        style={{ height: `${tall}px` }}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          grip.current = grab?.(at(event), width, tall) ?? null;
          if (!grip.current) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          event.currentTarget.focus({ preventScroll: true });
          event.preventDefault();
          grip.current.move(at(event));
        }}
        onPointerMove={(event) => {
          if (grip.current) grip.current.move(at(event));
          else hover?.(at(event), width, tall);
        }}
        onPointerUp={leave}
        onPointerCancel={leave}
        onPointerLeave={() => hover?.(null, width, tall)}
        onKeyDown={(event) => {
          if (event.ctrlKey || event.metaKey || event.altKey || !press?.(event)) return;
          event.preventDefault();
          event.stopPropagation();
        }}
      />
    </div>
  );
}

export const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif';
