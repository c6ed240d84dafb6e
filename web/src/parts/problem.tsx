import type { JSX } from "preact";
import { pageHint } from "./hint.ts";
import { Icon } from "./icon.tsx";
import { Words } from "./name.tsx";

export interface Found {
  code: string;
  message: string;
  hint?: string | null | undefined;
  details?: Record<string, unknown> | undefined;
}

/** An error with the message of the API, and what of its hint helps on the page. */
export function Problem({ problem, again }: { problem: Found; again?: () => void }): JSX.Element {
  const hint = pageHint(problem.hint ?? "");
  return (
    <div class="problem" role="alert">
      <Icon name="warning" />
      <div>
        <p>
          <Words text={problem.message} isWhole />
        </p>
        {hint !== null && hint !== "" && (
          <p class="faint">
            <Words text={hint} isWhole />
          </p>
        )}
      </div>
      {again !== undefined && (
        <button type="button" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** The text that is shown instead of an empty list or view. */
export function Empty({ title, children }: { title: string; children?: preact.ComponentChildren }): JSX.Element {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** A progress bar that is visible only if loading is late. It always takes up its space, so that nothing moves. */
export function Late({ isLate }: { isLate: boolean }): JSX.Element {
  return <div class="late" data-late={isLate} role="progressbar" aria-label="loading" aria-hidden={!isLate} />;
}

/** Attributes of an element whose content is still that of the former selection: the element is dim, and cannot be used. */
export function waiting(isOld: boolean): { inert?: true; "aria-busy"?: true } {
  return isOld ? { inert: true, "aria-busy": true } : {};
}
