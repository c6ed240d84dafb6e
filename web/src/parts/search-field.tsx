import { type Signal, useSignal } from "@preact/signals";
import type { JSX, RefObject, TargetedKeyboardEvent } from "preact";
import { useEffect } from "preact/hooks";
import { Icon } from "./icon.tsx";

/**
 * Returns a field's text as typed, and as it was after `afterMs` without a key press, which `write` puts into the
 * address. `inAddress`: the text in the address; undefined if the view has none.
 */
export function useTyped(
  inAddress: string | undefined,
  { afterMs, write }: { afterMs: number; write(text: string): void },
): { typed: Signal<string>; asked: Signal<string> } {
  const typed = useSignal(inAddress ?? "");
  const asked = useSignal(typed.value);
  useEffect(() => {
    const late = setTimeout(() => {
      asked.value = typed.value;
      if (inAddress !== undefined && typed.value !== inAddress) write(typed.value);
    }, afterMs);
    return () => clearTimeout(late);
  }, [typed.value]);
  // The address was changed by a link or the history, not by this field.
  useEffect(() => {
    if (inAddress !== undefined && inAddress !== asked.value) typed.value = asked.value = inAddress;
  }, [inAddress]);
  return { typed, asked };
}

export function SearchField({
  field,
  label,
  placeholder,
  typed,
  onKeyDown,
}: {
  field: RefObject<HTMLInputElement | null>;
  label: string;
  placeholder: string;
  typed: Signal<string>;
  onKeyDown(event: TargetedKeyboardEvent<HTMLInputElement>): void;
}): JSX.Element {
  return (
    <label class="filter">
      <Icon name="search" />
      <input
        ref={field}
        type="search"
        aria-label={label}
        placeholder={placeholder}
        value={typed.value}
        onInput={(event) => (typed.value = event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
    </label>
  );
}
