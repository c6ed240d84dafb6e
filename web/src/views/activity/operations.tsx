import { useSignal } from "@preact/signals";
import type { Operation, OperationList } from "cairnstate/client";
import type { JSX } from "preact";
import "../../styles/restore.css";
import { href } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { isBusy } from "../../app/outcome.tsx";
import { isReadOnly } from "../../app/session.ts";
import { backupTime } from "../../parts/cause.tsx";
import { Dialog } from "../../parts/dialog.tsx";
import { Icon } from "../../parts/icon.tsx";
import { PathName } from "../../parts/name.tsx";
import { count, plural } from "../../parts/numbers.ts";
import { Late, Problem } from "../../parts/problem.tsx";
import { When, wholeTime } from "../../parts/values.tsx";
import { Plan, usePlan } from "../restore-plan.tsx";
import { revert } from "../restore.tsx";
import { operationName, pathsOf, undoToRedo } from "../../parts/operation-names.ts";

/** The operations that changed the folder, and the plan of undoing some of them. */

export function Operations({ workspace, list }: { workspace: string; list: OperationList }): JSX.Element {
  const { operations } = list;
  const next = operations.findIndex(({ at }) => at === list.undo);
  const asked = useSignal<Revert | null>(null);
  const redoable = list.redo === null ? null : undoToRedo(operations);
  return (
    <>
      <h2>Operations</h2>
      {operations.length === 0 && <p class="faint">Nothing has changed this folder but its users.</p>}
      <ul class="activity-list" aria-label="Operations">
        {operations.map((each, i) => (
          <li key={`${each.at} ${each.kind}`} data-undone={each.is_undone}>
            <OperationName operation={each} />
            {each.undo_id !== null && (
              <a class="button quiet" href={href({ view: "point", workspace, point: each.undo_id })}>
                The state before
              </a>
            )}
            <a class="button quiet" href={href({ view: "point", workspace, point: each.restored_to })}>
              The restored state
            </a>
            {!isReadOnly() && isInForce(each) && next >= 0 && i >= next && (
              <button
                type="button"
                onClick={() => (asked.value = { verb: "undo", of: operations.slice(next, i + 1).filter(isInForce) })}
              >
                <Icon name="undo" /> {i === next ? "Undo…" : "Undo to before this…"}
              </button>
            )}
            {!isReadOnly() && each === redoable && (
              <button type="button" onClick={() => (asked.value = { verb: "redo", of: [each] })}>
                <Icon name="redo" /> Redo…
              </button>
            )}
          </li>
        ))}
      </ul>
      {asked.value !== null && (
        <RevertDialog workspace={workspace} {...asked.value} close={() => (asked.value = null)} />
      )}
    </>
  );
}

/** True for an operation that an undo reverts. An undo or a redo only changes if another operation is in force. */
function isInForce({ kind, is_undone: isUndone }: Operation): boolean {
  return kind !== "undo" && kind !== "redo" && !isUndone;
}

function OperationName({ operation }: { operation: Operation }): JSX.Element {
  const { at, cause, is_undone: isUndone } = operation;
  const backup = cause === null ? null : backupTime(cause);
  const name = operationName(operation);
  const paths = operation.paths === null ? null : pathsOf(operation.paths);
  return (
    <span class="activity-words">
      <strong>{backup === null ? name : `Restored from the backup of ${wholeTime(backup)}`}</strong>{" "}
      <When at={at} as={wholeTime} />{" "}
      <span class="faint">
        {paths === null ? "the whole folder" : <PathName path={paths[0] ?? ""} />}
        {paths !== null && paths.length > 1 && ` and ${count(paths.length - 1)} more`}
      </span>{" "}
      {isUndone && <span class="badge">undone</span>}
    </span>
  );
}

interface Revert {
  verb: "undo" | "redo";
  /** The operations, newest first; for a redo, the undo. */
  of: readonly Operation[];
}

/** The plan of undoing operations, or of redoing one. */
function RevertDialog({
  workspace,
  verb,
  of: operations,
  close,
}: Revert & { workspace: string; close(): void }): JSX.Element {
  const { length: of } = operations;
  const expected = operations[0]?.undo_id ?? null;
  const plan = usePlan({ of: `${verb} ${of} ${expected}`, workspace }, (_all, signal) =>
    call(
      verb === "undo" ? "planUndo" : "planRedo",
      { workspace, options: { count: of, ...(expected === null ? {} : { expected }) } },
      { signal },
    ),
  );
  const found = plan.problem === null ? plan.shown : undefined;
  const run = (): void => {
    close();
    void revert(workspace, verb, { expected, count: of, plan: found!.id });
  };
  const [one, back] = verb === "undo" ? ["Undo", "Redo"] : ["Redo", "Undo"];
  const name = operations.length === 1 ? one : `${one} ${plural(operations.length, "operation")}`;
  return (
    <Dialog title={name} close={close}>
      <div class="stack">
        <ul class="activity-list" aria-label={`Operations to ${verb}`}>
          {operations.map((each) => (
            <li key={each.at}>
              <OperationName operation={each} />
            </li>
          ))}
        </ul>
        <p class="faint">
          Entries that were edited since stay. The state of now is saved first: {back} brings it back.
        </p>
        <Late isLate={plan.isLate} />
        {plan.problem !== null && <Problem problem={plan.problem} again={plan.reload} />}
        {found !== undefined && <Plan plan={{ ...plan, choose: null }} />}
        <button type="button" class="strong" disabled={isBusy.value || found === undefined} onClick={run}>
          <Icon name={verb} /> {name}
        </button>
      </div>
    </Dialog>
  );
}
