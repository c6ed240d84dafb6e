import { useEffect, useRef } from "preact/hooks";

/** Actions of the views: their keys, and their titles for the palette and the help. */

export interface Action {
  /** As `KeyboardEvent.key`, with `Mod+` for Ctrl or ⌘; absent: only in the palette. */
  key?: string;
  /** In the imperative, like the label of a button. */
  title: string;
  run(): void;
}

const stack: { current: readonly Action[] }[] = [];

/** Returns the actions of all mounted components, those of the latest one last. */
export function possibleActions(): Action[] {
  return stack.flatMap(({ current }) => current);
}

const MOVING = new Set(["j", "k", "n", "N", "ArrowDown", "ArrowUp"]);
const IN_TEXT = "input, textarea, select, [contenteditable]";
/** Elements that the arrow keys scroll while they have the focus. */
const SCROLLED = "[role='region'], pre";

/** Offers actions while the component is mounted. */
export function useActions(offered: readonly Action[]): void {
  const own = useRef(offered);
  own.current = offered;
  useEffect(() => {
    stack.push(own);
    return () => void stack.splice(stack.indexOf(own), 1);
  }, []);
}

addEventListener("keydown", (event) => {
  const { key, ctrlKey, metaKey, altKey, target } = event;
  if (event.defaultPrevented || altKey) return;
  // A repeated key only moves through a list; other actions run once.
  if (event.repeat && !MOVING.has(key)) return;
  // A dialog has its own keys.
  if (document.querySelector("dialog[open]") !== null) return;
  const isMod = ctrlKey || metaKey;
  const name = isMod ? `Mod+${key.toLowerCase()}` : key;
  if (!isMod && (target as Element).matches?.(IN_TEXT)) return;
  if (key.startsWith("Arrow") && (target as Element).matches?.(SCROLLED)) return;
  // Enter on a button or link runs that button or link.
  if (key === "Enter" && (target as Element).closest?.("a, button, summary") !== null) return;
  const found = possibleActions().findLast((each) => each.key === name);
  if (found === undefined) return;
  event.preventDefault();
  found.run();
});
