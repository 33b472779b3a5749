// The dialog that says how the studio is worked.
import { Dialog } from "../core/dialog";
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
  return (
    <Dialog open={help} id="help" title="help-title">
      <h2 id="help-title">How to work the studio</h2>
      <p>Every point is a row of your data, where the encoder puts the mean of q(z|x). Points of the map can be decoded whether or not data lie there.</p>
      <h3>On the map, by keyboard</h3>
      <Table rows={KEYS} />
      <h3>By pointer</h3>
      <Table rows={POINTER} />
      <button type="button" class="primary" data-testid="help-close" onClick={() => (help.value = false)}>
        Close
      </button>
    </Dialog>
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
