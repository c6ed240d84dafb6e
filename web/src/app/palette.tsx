import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { Dialog } from "../parts/dialog.tsx";
import { visible } from "../parts/name.tsx";
import { Late, Problem } from "../parts/problem.tsx";
import { useTyped } from "../parts/search-field.tsx";
import { wholeTime } from "../parts/values.tsx";
import { nameOf, type Route } from "./address.ts";
import { call, historyOptions } from "./calls.ts";
import { type Action, possibleActions } from "./keys.ts";
import { useResource } from "./resource.ts";
import { go, route } from "./route.ts";

/** Milliseconds without a key press after which workspaces, points and files are looked for. */
const TYPING_MS = 150;
/** Points, files and workspaces that are listed, of each. */
const MOST = 6;

interface Choice extends Action {
  kind?: string;
}

/** The command palette: finds actions of the present view, workspaces, and save points and files of this one. */
export function Sheet({ close }: { close(): void }): JSX.Element {
  const all = useRef(possibleActions().toReversed()).current;
  const { typed: text, asked } = useTyped(undefined, { afterMs: TYPING_MS, write: () => undefined });
  const chosen = useSignal(0);
  const words = text.value.toLowerCase().split(/\s+/);
  const actions: Choice[] = all.filter(({ title }) => words.every((each) => title.toLowerCase().includes(each)));
  const at = route.value;
  const workspace = at.view === "workspaces" ? null : at.workspace;
  const wanted = asked.value.trim();
  const places = useResource(`palette ${workspace} ${wanted}`, async (signal) => ({
    of: wanted,
    list: await placesOf(workspace, wanted, signal),
  }));
  // An answer to an earlier text is not shown: Enter would choose from it.
  const isCurrent = places.value?.of === text.value.trim();
  const found = [...actions, ...(isCurrent ? places.value!.list : [])];
  const picked = Math.min(chosen.value, found.length - 1);
  const run = (action: Choice | undefined): void => {
    if (action === undefined) return;
    close();
    action.run();
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.key === "Enter") run(found[picked]);
    else if (event.key === "ArrowDown") chosen.value = Math.min(picked + 1, found.length - 1);
    else if (event.key === "ArrowUp") chosen.value = Math.max(picked - 1, 0);
    else return;
    event.preventDefault();
  };
  return (
    <Dialog title="Commands" close={close}>
      <input
        class="wide"
        placeholder="An action, a save point, a file or a workspace"
        aria-label="Command"
        role="combobox"
        aria-expanded="true"
        aria-controls="palette-found"
        aria-activedescendant={picked < 0 ? undefined : `palette-${picked}`}
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
            aria-selected={i === picked}
            onClick={() => run(each)}
            onMouseMove={() => (chosen.value = i)}
          >
            <span>
              {visible(each.title)} {each.kind !== undefined && <span class="faint">{each.kind}</span>}
            </span>
            {each.key !== undefined && <kbd>{each.key.replace("Mod+", "Ctrl ")}</kbd>}
          </li>
        ))}
      </ul>
      <Late isLate={places.isLate.value} />
      {places.problem !== null && <Problem problem={places.problem} />}
      {found.length === 0 && isCurrent && <p class="faint">Nothing here is called that.</p>}
    </Dialog>
  );
}

/** Returns workspaces with a text in their path, and points and files of one workspace that fit the text. */
async function placesOf(workspace: string | null, text: string, signal: AbortSignal): Promise<Choice[]> {
  if (text === "") return [];
  const [own, workspaces] = await Promise.all([
    workspace === null ? [] : placesIn(workspace, text, signal),
    call("listWorkspaces", {}, { signal }),
  ]);
  const named = workspaces.filter(({ path }) => path.toLowerCase().includes(text.toLowerCase())).slice(0, MOST);
  return [
    ...own,
    ...named.map(({ path }) => placeAt(nameOf(path), `workspace ${path}`, { view: "timeline", workspace: path })),
  ];
}

async function placesIn(workspace: string, text: string, signal: AbortSignal): Promise<Choice[]> {
  const options = { ...historyOptions(text), all: true };
  const [points, files] = await Promise.all([
    call("history", { workspace, limit: MOST, options }, { signal })
      .then(({ save_points }) => save_points)
      // The text is an incomplete filter or pattern, for example `since:` or `[`.
      .catch(() => []),
    call("findNames", { workspace, pattern: text, options: { ignoreCase: true, limit: MOST } }, { signal })
      .then(({ found }) => found)
      .catch(() => []),
  ]);
  return [
    ...points.map(({ save_point_id: point, message, created_at: time }) =>
      placeAt(message || point.slice(0, 8), `save point of ${wholeTime(time)}`, { view: "point", workspace, point }),
    ),
    ...files.map((each) => placeAt(each.path, "file", { view: "file-history", workspace, at: each })),
  ];
}

function placeAt(title: string, kind: string, place: Route): Choice {
  return { title, kind, run: () => go(place) };
}
