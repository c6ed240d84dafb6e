import type { Recovery } from "../../formats/records/control.ts";
import type { UnfinishedWork, WorkKind } from "../../formats/records/unfinished.ts";
import type { Told, Unfinished } from "../../fs/unfinished.ts";
import type { Journaled, Recoverable, Workspace, WorkspaceCall } from "./workspace.ts";

/** The end of interrupted work, for the user; null: nothing that a user must know. */
export type Ended = (Pick<Recovery, "detail"> & Partial<Recovery>) | null;

type Ends<K extends WorkKind> = (workspace: Workspace, work: UnfinishedWork[K], call: WorkspaceCall) => Promise<Ended>;

/** Work with a record in the journal directory. `isCommitted` absent: the record is the commit. */
interface JournaledWork<K extends WorkKind> extends Told, Omit<Journaled, "record"> {
  readonly kind: K;
  isCommitted?(workspace: Workspace, work: UnfinishedWork[K]): boolean | Promise<boolean>;
  finish?: Ends<K>;
  takeBack?: Ends<K>;
}

/** Makes an entry of the list of recoveries: work that was committed is finished, other work is taken back. */
export function journaled<K extends WorkKind>(work: JournaledWork<K>): Recoverable {
  const { kind, operation } = work;
  const record = (workspace: Workspace): Unfinished<UnfinishedWork[K]> => workspace.unfinished(kind);
  return {
    ...work,
    journaled: { ...work, record },
    isLeft: (workspace) => record(workspace).isLeft,
    async recover(workspace, call) {
      const begun = record(workspace).read();
      if (begun === null) return [];
      const isCommitted = (await work.isCommitted?.(workspace, begun)) ?? true;
      const ended = (await (isCommitted ? work.finish : work.takeBack)?.(workspace, begun, call)) ?? null;
      const outcome = isCommitted ? "completed" : "rolled_back";
      return ended === null ? [] : [{ operation, outcome, kept: [], ...ended }];
    },
  };
}

/** Describes a folder whose restore has an unreadable record, and names the save point of the state before. */
export function restoredInPart(workspace: Workspace): string {
  const undo = workspace.points.list().points.find(({ descriptor }) => descriptor.undo);
  const way =
    undo === undefined
      ? "the undo point of the restore is missing"
      : `the state before the restore is the save point ${undo.descriptor.save_point_id.slice(0, 8)}`;
  return `part of the folder may be restored and part not; ${way}`;
}
