import { type Signal, useSignal } from "@preact/signals";
import type { JSX, RefObject, TargetedKeyboardEvent } from "preact";
import { useEffect } from "preact/hooks";
import { Icon } from "./icon.tsx";

/**
 * The text of a field as it is typed, and as it was when nothing was typed for `afterMs`: then `write` puts it into the address.
 * `inAddress`: the text that the address has; undefined for an address that has none.
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
  // An address that somebody followed, and not the one that this field wrote.
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
