import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { Dialog } from "../parts/dialog.tsx";
import { type Action, possibleActions } from "./keys.ts";

/** The command palette: finds an action of the present view by a part of its title. */
export function Sheet({ close }: { close(): void }): JSX.Element {
  const all = useRef(possibleActions().toReversed()).current;
  const text = useSignal("");
  const chosen = useSignal(0);
  const words = text.value.toLowerCase().split(/\s+/);
  const found = all.filter(({ title }) => words.every((each) => title.toLowerCase().includes(each)));
  const at = Math.min(chosen.value, found.length - 1);
  const run = (action: Action | undefined): void => {
    if (action === undefined) return;
    close();
    action.run();
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.key === "Enter") run(found[at]);
    else if (event.key === "ArrowDown") chosen.value = Math.min(at + 1, found.length - 1);
    else if (event.key === "ArrowUp") chosen.value = Math.max(at - 1, 0);
    else return;
    event.preventDefault();
  };
  return (
    <Dialog title="Commands" close={close}>
      <input
        class="wide"
        placeholder="Type a part of what you want to do"
        aria-label="Command"
        role="combobox"
        aria-expanded="true"
        aria-controls="palette-found"
        aria-activedescendant={at < 0 ? undefined : `palette-${at}`}
        value={text.value}
        autofocus
        onInput={(event) => {
          text.value = event.currentTarget.value;
          chosen.value = 0;
        }}
        onKeyDown={onKey}
      />
      <ul id="palette-found" class="choices" role="listbox" aria-label="Commands">
        {found.map((each, i) => (
          <li
            key={`${each.title} ${i}`}
            id={`palette-${i}`}
            role="option"
            aria-selected={i === at}
            onClick={() => run(each)}
            onMouseMove={() => (chosen.value = i)}
          >
            <span>{each.title}</span>
            {each.key !== undefined && <kbd>{each.key.replace("Mod+", "Ctrl ")}</kbd>}
          </li>
        ))}
      </ul>
      {found.length === 0 && <p class="faint">Nothing here is called that.</p>}
    </Dialog>
  );
}
