// The dialog that says how the studio is worked.
import { useEffect, useRef } from "preact/hooks";
import { help } from "./state";

const KEYS: [string, string][] = [
  ["Arrows", "move the crosshair and decode there; with Shift by one pixel"],
  ["+  −  0", "zoom in, zoom out, show all points"],
  ["Enter", "pick: the nearest row, an end of a path, or the rectangle"],
  ["Shift + arrows", "with Lasso: draw a rectangle, Enter selects"],
  ["Escape", "cancel what is under way"],
  ["D R P L M", "tools: decode, select row, path, lasso, pan"],
];
const POINTER: [string, string][] = [
  ["Drag", "what the tool does: decode, draw a lasso, move an end of a path, pan"],
  ["Double-click", "choose the nearest row, with any tool"],
  ["Wheel, two fingers", "zoom"],
  ["Right or middle button, Space + drag", "pan with any tool"],
];

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = help.value;
  useEffect(() => {
    if (open && !dialog.current?.open) dialog.current?.showModal();
    if (!open) dialog.current?.close();
  }, [open]);
  return (
    <dialog ref={dialog} aria-labelledby="help-title" data-testid="help" onClose={() => (help.value = false)}>
      <h2 id="help-title">How to work the studio</h2>
      <p>Every point is a row of your data, where the encoder puts the mean of q(z|x). Points of the map can be decoded whether or not data lie there.</p>
      <h3>On the map, by keyboard</h3>
      <Table rows={KEYS} />
      <h3>By pointer</h3>
      <Table rows={POINTER} />
      <form method="dialog">
        <button type="submit" class="primary" data-testid="help-close">
          Close
        </button>
      </form>
    </dialog>
  );
}

function Table({ rows }: { rows: [string, string][] }) {
  return (
    <table>
      <tbody>
        {rows.map(([key, what]) => (
          <tr>
            <th scope="row">
              <kbd>{key}</kbd>
            </th>
            <td>{what}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
