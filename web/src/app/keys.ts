import { useEffect, useRef } from "preact/hooks";

/** Keys of the views, and what the palette and the help list of them. */

export interface Action {
  /** As `KeyboardEvent.key`, with `Mod+` for Ctrl or ⌘; absent: only in the palette. */
  key?: string;
  /** In the imperative, as a button says it. */
  title: string;
  run(): void;
}

const stack: { current: readonly Action[] }[] = [];

/** Actions that can be done now, the latest view's last. */
export function possibleActions(): Action[] {
  return stack.flatMap(({ current }) => current);
}

const MOVING = new Set(["j", "k", "n", "N", "ArrowDown", "ArrowUp"]);
const IN_TEXT = "input, textarea, select, [contenteditable]";

/** Offers actions while the component is there. */
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
  // A key that is held goes on through a list, and does nothing else twice.
  if (event.repeat && !MOVING.has(key)) return;
  // A dialog has its own keys.
  if (document.querySelector("dialog[open]") !== null) return;
  const isMod = ctrlKey || metaKey;
  const name = isMod ? `Mod+${key.toLowerCase()}` : key;
  if (!isMod && (target as Element).matches?.(IN_TEXT)) return;
  // A button or link does its own thing on Enter.
  if (key === "Enter" && (target as Element).closest?.("a, button, summary") !== null) return;
  const found = possibleActions().findLast((each) => each.key === name);
  if (found === undefined) return;
  event.preventDefault();
  found.run();
});
