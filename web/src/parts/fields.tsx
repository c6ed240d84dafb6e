import type { Signal } from "@preact/signals";
import type { ComponentChildren, InputHTMLAttributes, JSX } from "preact";

/** A field that edits the text of a signal. */
export function TextField({
  text,
  ...rest
}: { text: Signal<string>; type?: "search" } & InputHTMLAttributes): JSX.Element {
  return <input {...rest} value={text.value} onInput={(event) => (text.value = event.currentTarget.value)} />;
}

/** A checkbox of a signal, with its label. */
export function Check({ is, children }: { is: Signal<boolean>; children: ComponentChildren }): JSX.Element {
  return (
    <label class="check">
      <input type="checkbox" checked={is.value} onChange={(event) => (is.value = event.currentTarget.checked)} />
      {children}
    </label>
  );
}
