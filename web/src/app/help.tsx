import type { JSX } from "preact";
import { Dialog } from "../parts/dialog.tsx";
import { possibleActions } from "./keys.ts";

/** All keys that do something here. */
export function Sheet({ close }: { close(): void }): JSX.Element {
  const keys = possibleActions().filter(({ key }) => key !== undefined);
  return (
    <Dialog title="Keys" close={close}>
      <table class="keys">
        <tbody>
          {keys.map(({ key, title }) => (
            <tr key={`${key} ${title}`}>
              <td>
                <kbd>{key!.replace("Mod+", "Ctrl ")}</kbd>
              </td>
              <td>{title}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Dialog>
  );
}
