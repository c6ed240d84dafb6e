import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Icon } from "./icon.tsx";

/** A modal dialog. Escape or a click outside closes it; then the focus returns to the element that had it before. */
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
  // At once, so that no key that is pressed next reaches the view.
  useLayoutEffect(() => own.current!.showModal(), []);
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
