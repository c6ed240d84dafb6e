import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { Icon } from "../parts/icon.tsx";
import { type Found, Problem } from "../parts/problem.tsx";
import { problemOf } from "./resource.ts";

/** The bar with the result of the last action and a button that reverts it. */

interface Outcome {
  text: ComponentChildren;
  problem?: Found;
  undo?: { title: string; run(): void } | undefined;
}

const shown = signal<Outcome | null>(null);
/** True while an action is carried out. */
export const isBusy = signal(false);

export function tellOutcome(outcome: Outcome | null): void {
  shown.value = outcome;
}

/**
 * Runs an action and shows its result or its error. Resolves with null after an error, or while another action runs.
 */
export async function act<T>(work: () => Promise<T>, told: (answer: T) => Outcome): Promise<T | null> {
  if (isBusy.value) return null;
  isBusy.value = true;
  try {
    const answer = await work();
    tellOutcome(told(answer));
    return answer;
  } catch (error) {
    tellOutcome({ text: "", problem: problemOf(error) });
    return null;
  } finally {
    isBusy.value = false;
  }
}

export function OutcomeBar(): JSX.Element {
  const outcome = shown.value;
  return (
    <div class="outcome" role="status" aria-live="polite" hidden={outcome === null}>
      {outcome !== null && (
        <>
          {outcome.problem === undefined ? <p>{outcome.text}</p> : <Problem problem={outcome.problem} />}
          {outcome.undo !== undefined && (
            <button type="button" class="strong" disabled={isBusy.value} onClick={outcome.undo.run}>
              <Icon name="undo" /> {outcome.undo.title}
            </button>
          )}
          <button type="button" class="quiet" aria-label="Close" onClick={() => tellOutcome(null)}>
            <Icon name="close" />
          </button>
        </>
      )}
    </div>
  );
}
