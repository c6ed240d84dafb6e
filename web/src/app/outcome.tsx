import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Icon } from "../parts/icon.tsx";
import { type Found, Problem } from "../parts/problem.tsx";
import { onEvent } from "./events.ts";
import { noteOperation, problemOf } from "./resource.ts";
import { route } from "./route.ts";

/**
 * The notice with the result of the last action, and a button that reverts it. It leaves after some seconds or when
 * another view is opened. One with a button leaves when other views were opened twice, or the workspace has a newer save
 * point or operation.
 */

export interface Outcome {
  text: ComponentChildren;
  problem?: Found;
  /** `point`: the undo point of the operation that `run` reverts. */
  undo?: { title: string; workspace: string; point: string; run(): void } | undefined;
}

/** Milliseconds for which a notice without a button is shown. */
const SHOWN_MS = 8_000;
/** Other views that may be opened before a notice with a button leaves. */
const MOST_VIEWS = 1;

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
    noteOperation();
    tellOutcome(told(answer));
    return answer;
  } catch (error) {
    // The operation may be partly done.
    noteOperation();
    tellOutcome({ text: "", problem: problemOf(error) });
    return null;
  } finally {
    isBusy.value = false;
  }
}

/** True for an event of a save point or operation that came after the one that `undo` reverts. */
function isNewer(
  { workspace, point }: NonNullable<Outcome["undo"]>,
  event: Parameters<Parameters<typeof onEvent>[0]>[0],
): boolean {
  if (event.workspace !== workspace) return false;
  if (event.type === "save") return event.data.save_point_id !== point;
  return (event.type === "restore" || event.type === "undo") && event.data.undo_id !== point;
}

/** Removes the notice when it is no longer of use. */
function useLeaving(outcome: Outcome | null): void {
  const { view } = route.value;
  const views = useRef({ of: outcome, view, others: 0 });
  useEffect(() => {
    const seen = views.current;
    if (seen.of !== outcome) views.current = { of: outcome, view, others: 0 };
    else if (seen.view !== view) {
      views.current = { of: outcome, view, others: seen.others + 1 };
      if (outcome?.undo === undefined || seen.others >= MOST_VIEWS) tellOutcome(null);
    }
  }, [outcome, view]);
  useEffect(() => {
    if (outcome === null) return undefined;
    const { undo, problem } = outcome;
    if (undo !== undefined)
      return onEvent((event) => isNewer(undo, event) && shown.value === outcome && tellOutcome(null));
    if (problem !== undefined) return undefined;
    const late = setTimeout(() => shown.value === outcome && tellOutcome(null), SHOWN_MS);
    return () => clearTimeout(late);
  }, [outcome]);
}

export function OutcomeBar(): JSX.Element {
  useLeaving(shown.value);
  // The button of an earlier action does not stand beside that of a plan.
  const isPlanning = route.value.view === "restore" || route.value.view === "adopt";
  const outcome = isPlanning && shown.value?.undo !== undefined ? null : shown.value;
  return (
    <div class="outcome" role="status" aria-live="polite" hidden={outcome === null}>
      {outcome !== null && (
        <>
          {outcome.problem === undefined ? <p>{outcome.text}</p> : <Problem problem={outcome.problem} />}
          {outcome.undo !== undefined && (
            <button type="button" class="strong" disabled={isBusy.value} onClick={outcome.undo.run}>
              <Icon name={outcome.undo.title === "Redo" ? "redo" : "undo"} /> {outcome.undo.title}
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
