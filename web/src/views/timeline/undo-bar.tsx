import type { SavePoint } from "cairnstate/client";
import type { JSX } from "preact";
import { call } from "../../app/calls.ts";
import { useActions } from "../../app/keys.ts";
import { isBusy } from "../../app/outcome.tsx";
import { useResource } from "../../app/resource.ts";
import { isReadOnly } from "../../app/session.ts";
import { Icon } from "../../parts/icon.tsx";
import { When } from "../../parts/values.tsx";
import { doneName } from "../../parts/operation-names.ts";

/** The bar that reverts the last operation: an undo by a redo, any other by an undo. `undo`: the operation's undo point. */
export function UndoBar({ workspace, undo: point }: { workspace: string; undo: SavePoint | null }): JSX.Element | null {
  const isShown = point !== null && !isReadOnly();
  const isUndone = point?.cause.kind === "undo";
  const run = (): void =>
    void (
      point !== null &&
      import("../restore.tsx").then(({ revert }) =>
        revert(workspace, isUndone ? "redo" : "undo", { expected: point.save_point_id }),
      )
    );
  const title = isUndone ? "Redo what was undone" : "Undo the last operation";
  useActions(isShown ? [{ key: "u", title, run }] : []);
  if (!isShown) return null;
  return (
    <p class="undo-bar">
      <span class="faint">
        <Done key={point.save_point_id} workspace={workspace} undo={point} /> <When at={point.created_at} />
      </span>
      <button type="button" disabled={isBusy.value} onClick={run}>
        <Icon name={isUndone ? "redo" : "undo"} /> {isUndone ? "Redo" : "Undo"}
      </button>
    </p>
  );
}

/** Names the operation as the activity does. Its undo point cannot tell a merge from an adoption, so the operations are read. */
function Done({ workspace, undo: { save_point_id: id, cause } }: { workspace: string; undo: SavePoint }): JSX.Element {
  const { value } = useResource(`operation ${id}`, async (signal) => {
    const { operations } = await call("operations", { workspace }, { signal });
    return operations.find(({ undo_id: each }) => each === id);
  });
  const known = cause.kind === "undo" ? "Undone" : cause.kind === "restore" ? "Restored" : "Changed";
  return <>{value === undefined ? known : doneName(value)}</>;
}
