import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Icon } from "./icon.tsx";

/** A modal dialog; Escape and a click beside it close it, and the focus goes back where it was. */
export function Dialog({
  title,
  close,
  children,
}: {
  title: string;
  close(): void;
  children: ComponentChildren;
}): JSX.Element {
  const own = useRef<HTMLDialogElement>(null);
  useEffect(() => own.current!.showModal(), []);
  return (
    <dialog
      ref={own}
      aria-label={title}
      onClose={close}
      onClick={(event) => event.target === own.current && own.current!.close()}
    >
      <header>
        <h2>{title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick={() => own.current!.close()}>
          <Icon name="close" />
        </button>
      </header>
      {children}
    </dialog>
  );
}
