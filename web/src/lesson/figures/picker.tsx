// The choice of the datum: rows of the data, as small pictures or bars.
import { useEffect, useRef } from "preact/hooks";
import type { Subject } from "../desk";
import { choose, label, offered, row, stale } from "./inference";
import { Bars, Picture, rowOf, Status } from "./parts";

const name = (number: number, label: string | number | null): string =>
  `row ${number}${label === null || label === "" ? "" : `, ${label}`}`;

/** All rows that are offered, in a line to choose from; arrow keys go along it. */
export function Picker({ model, id }: { model: Subject; id: string }) {
  const list = useRef<HTMLDivElement>(null);
  const cells = offered.value;
  const at = row.value;
  useEffect(() => {
    const box = list.current;
    const chosen = box?.querySelector<HTMLElement>('[aria-checked="true"]');
    if (!box || !chosen) return;
    box.scrollLeft = chosen.offsetLeft - (box.clientWidth - chosen.offsetWidth) / 2;
  }, [at, cells]);
  if (cells.state !== "ready") return <Status of={cells} />;
  const rows = model.rows;
  const pressed = (event: KeyboardEvent): void => {
    const here = rows.findIndex(([each]) => each === at);
    const steps: Record<string, number> = {
      ArrowRight: here + 1,
      ArrowDown: here + 1,
      ArrowLeft: here - 1,
      ArrowUp: here - 1,
      Home: 0,
      End: rows.length - 1,
    };
    const next = steps[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const to = (next + rows.length) % rows.length;
    const chosen = rows[to]?.[0];
    if (chosen === undefined) return;
    choose(chosen);
    list.current?.querySelectorAll<HTMLElement>('[role="radio"]')[to]?.focus({ preventScroll: true });
  };
  return (
    <div class="picker-box">
      <p class="picker-head" id={`picker-${id}`}>
        The datum <span class="quiet">{at === null ? "" : name(at, label.value || null)}</span>
        {stale.value && (
          <span class="quiet" role="status">
            · Integrating over the plane …
          </span>
        )}
      </p>
      <div
        class="picker"
        role="radiogroup"
        aria-labelledby={`picker-${id}`}
        ref={list}
        onKeyDown={pressed}
        data-testid={`picker-${id}`}
      >
        {rows.map(([number, label], i) => (
          <button
            role="radio"
            aria-checked={number === at}
            aria-label={name(number, label)}
            title={name(number, label)}
            tabIndex={number === at || (at === null && i === 0) ? 0 : -1}
            data-row={number}
            onClick={() => choose(number)}
          >
            <Thumbnail model={model} i={i} />
            {model.kind === "table" && <span class="thumb-label">{label ?? number}</span>}
          </button>
        ))}
      </div>
    </div>
  );
}

function Thumbnail({ model, i }: { model: Subject; i: number }) {
  const cells = offered.value;
  if (cells.state !== "ready") return null;
  const one = rowOf(cells.value, i);
  if (model.kind === "image" && model.shape) {
    return <Picture cells={one.data as Uint8Array} shape={model.shape} label="" size={34} />;
  }
  return <Bars values={one} size={34} />;
}
