import type { Recovery } from "../../formats/records/control.ts";
import type { UnfinishedWork, WorkKind } from "../../formats/records/unfinished.ts";
import type { Told, Unfinished } from "../../fs/unfinished.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** Work of a workspace that a kill can interrupt: how it is recorded, and how the next command ends it. */
export interface Recoverable extends Told {
  /** True if a killed command left such work; cheap, and takes no lock. */
  isLeft(workspace: Workspace): boolean;
  /** Finishes the work or takes it back. The caller holds the workspace's lock. */
  recover(workspace: Workspace, call: WorkspaceCall): Promise<readonly Recovery[]>;
  /** Present if the record lies in the workspace's journal directory. */
  readonly journaled?: Journaled;
}

/** Facts of work whose record lies in the journal directory. */
export interface Journaled {
  readonly operation: "restore" | "cleanup" | "conversion" | "seal";
  /** True: the record decides over entries of the folder, so root trusts no other user's record. */
  readonly changesFolder: boolean;
  /** Tells what is left if the record cannot be read. */
  unreadable(workspace: Workspace): string;
  record(workspace: Workspace): Pick<Unfinished<unknown>, "files" | "isLeft" | "read">;
}

/** The end of interrupted work, for the user; null: nothing that a user must know. */
export type Ended = (Pick<Recovery, "detail"> & Partial<Recovery>) | null;

type Ends<K extends WorkKind> = (workspace: Workspace, work: UnfinishedWork[K], call: WorkspaceCall) => Promise<Ended>;

/** Work with a record in the journal directory. `isCommitted` absent: the record is the commit. */
export interface JournaledWork<K extends WorkKind> extends Told, Omit<Journaled, "record"> {
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
      call.onProgress?.({ phase: "recovering", done: 0 });
      const isCommitted = (await work.isCommitted?.(workspace, begun)) ?? true;
      const ended = (await (isCommitted ? work.finish : work.takeBack)?.(workspace, begun, call)) ?? null;
      const outcome = isCommitted ? "completed" : "rolled_back";
      return ended === null ? [] : [{ operation, outcome, kept: [], ...ended }];
    },
  };
}
