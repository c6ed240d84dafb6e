import type { JSX } from "preact";
import type { Problem as Found } from "../app/resource.ts";
import { Icon } from "./icon.tsx";
import { Words } from "./name.tsx";

/** An error as the API words it, with its hint. */
export function Problem({ problem, again }: { problem: Found; again?: () => void }): JSX.Element {
  return (
    <div class="problem" role="alert">
      <Icon name="warning" />
      <div>
        <p>
          <Words text={problem.message} isWhole />
        </p>
        {problem.hint !== undefined && problem.hint !== null && (
          <p class="faint">
            <Words text={problem.hint} isWhole />
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

/** What is shown where there is nothing yet. */
export function Empty({ title, children }: { title: string; children?: preact.ComponentChildren }): JSX.Element {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Shown only once loading takes longer than a moment; the place is kept free, so nothing moves. */
export function Late({ isLate }: { isLate: boolean }): JSX.Element {
  return <div class="late" data-late={isLate} role="progressbar" aria-label="loading" aria-hidden={!isLate} />;
}
