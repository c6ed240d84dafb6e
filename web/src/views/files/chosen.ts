import { signal } from "@preact/signals";
import type { ListedEntry } from "cairnstate/client";
import { foldersOf, toText } from "../../app/address.ts";

/** The entries that are chosen in a point or a backup, in all its folders, for as long as the page is open. */

type Chosen = ReadonlyMap<string, ListedEntry>;

const NONE: Chosen = new Map();
const chosen = signal<ReadonlyMap<string, Chosen>>(new Map());

/** Returns the chosen entries by their paths. `state`: the workspace and the whole id of the point or backup. */
export function chosenIn(state: string): Chosen {
  return chosen.value.get(state) ?? NONE;
}

export function chooseNone(state: string): void {
  set(state, NONE);
}

/** Chooses an entry, or takes it out of the choice. A folder replaces the chosen entries below it. */
export function toggle(state: string, entry: ListedEntry): void {
  const next = new Map(chosenIn(state));
  const key = toText(entry);
  if (!next.delete(key)) {
    for (const [other, each] of next) if (foldersOf(each).includes(key)) next.delete(other);
    next.set(key, entry);
  }
  set(state, next);
}

function set(state: string, entries: Chosen): void {
  chosen.value = new Map([...chosen.value, [state, entries]]);
}
