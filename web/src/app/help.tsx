import type { JSX } from "preact";
import { Dialog } from "../parts/dialog.tsx";
import { possibleActions } from "./keys.ts";

/** The dialog that lists the keys of the present view. */
export function Sheet({ close }: { close(): void }): JSX.Element {
  const keys = new Map<string, string[]>();
  for (const { key, title } of possibleActions())
    if (key !== undefined) keys.set(title, [...(keys.get(title) ?? []), shown(key)]);
  return (
    <Dialog title="Keys" close={close}>
      <table class="keys">
        <tbody>
          {[...keys].map(([title, all]) => (
            <tr key={title}>
              <td>
                {all.map((key) => (
                  <kbd key={key}>{key}</kbd>
                ))}
              </td>
              <td>{title}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Dialog>
  );
}

const ARROWS: Readonly<Record<string, string>> = { ArrowDown: "↓", ArrowUp: "↑", Escape: "Esc", Backspace: "⌫" };

function shown(key: string): string {
  return ARROWS[key] ?? key.replace("Mod+", "Ctrl ");
}
