// A modal dialog that is open while a signal says so.
import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

interface Props {
  open: Signal<boolean>;
  id: string; // data-testid
  title: string; // the id of the heading that names it
  class?: string;
  children: ComponentChildren;
}

export function Dialog({ open, id, title, class: style, children }: Props) {
  const box = useRef<HTMLDialogElement>(null);
  const wanted = open.value;
  // A layout effect runs in the turn of the key or click that caused it: no later key meets a dialog not yet there.
  useLayoutEffect(() => {
    const dialog = box.current;
    if (!dialog || wanted === dialog.open) return;
    if (!wanted) return dialog.close();
    dialog.showModal();
    dialog.scrollTop = 0; // to the heading, away from the button below that has got the focus
  }, [wanted]);
  return (
    <dialog
      class={style}
      ref={box}
      aria-labelledby={title}
      data-testid={id}
      onClose={() => (open.value = box.current?.open ?? false)} // told late: it may be open again
      onClick={(event) => event.target === box.current && (open.value = false)}
    >
      <div class="inside">{children}</div>
    </dialog>
  );
}
