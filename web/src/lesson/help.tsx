// The dialog of keys and of what can be clicked.
import { signal } from "@preact/signals";
import { Dialog } from "../core/dialog";

export const helpOpen = signal(false);

const KEYS: [string[], string][] = [
  [["space", "k"], "play or pause"],
  [["←", "j"], "previous paragraph"],
  [["→", "l"], "next paragraph"],
  [["shift + ←", "shift + →"], "previous or next sentence"],
  [["r"], "return to the narration"],
  [["c"], "captions on or off"],
  [["<", ">"], "slower or faster"],
  [["?"], "this help"],
];

export function Help() {
  return (
    <Dialog open={helpOpen} id="help-dialog" title="help-title" class="help">
      <h2 id="help-title">Listening and playing</h2>
      <table>
        <tbody>
          {KEYS.map(([keys, what]) => (
            <tr>
              <th scope="row">
                {keys.map((key, i) => (
                  <>
                    {i > 0 && " "}
                    <kbd>{key}</kbd>
                  </>
                ))}
              </th>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p>
        A click on a paragraph or a sentence moves the narration there; the number beside a paragraph’s title reads
        from there. Scroll as you like: the narration goes on, and a button leads back to it.
      </p>
      <p>
        Every figure is live. Drag in it, or move to it with <kbd>tab</kbd> and use the keys that it names. The
        recorded voice comes with the package; the browser’s own voice may be one that its maker runs elsewhere.
      </p>
      <button class="primary" data-testid="help-close" onClick={() => (helpOpen.value = false)}>
        Close
      </button>
    </Dialog>
  );
}
