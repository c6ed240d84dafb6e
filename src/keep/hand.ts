import type { OpenRepository } from "../backup/open/open-repository.ts";
import type { CairnLibrary, Client } from "../contract/index.ts";
import type { Conversion } from "../contract/words.ts";
import type { StorageFactory } from "../repository/storage/location.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";
import type { Removals } from "../workspace/points/held-trees.ts";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import type { SealProblem } from "../workspace/save/seal.ts";
import type { Task } from "./schedule.ts";
import type { Looking } from "../look/sources/operands.ts";
import type { Workspace, WorkspaceParts } from "../workspace/open/workspace.ts";

/** Arguments of a verb that works on the workspace named by its `workspaceName`. */
export interface Hand extends Looking {
  readonly parts: WorkspaceParts;
  /** points that could not be sealed, for a verb that needs sealed points */
  readonly unsealed: readonly SealProblem[];
}

/** Arguments of a verb that opens workspaces itself, or none. */
export interface Opened {
  readonly client: Client;
  readonly removals: Removals;
  readonly openStorage: StorageFactory;
  readonly parts: WorkspaceParts;
  readonly tasksOf: TasksOf;
  control(): ControlPaths;
  /** Opens a workspace and runs `work` with it. */
  within<T>(name: string | undefined, work: (workspace: Workspace) => Promise<T>): Promise<T>;
}

/** Returns the scheduled tasks that a daemon has for the workspace with an id; null without a daemon. */
export type TasksOf = (workspaceId: string) => readonly Task[] | null;

/** Arguments of a verb that needs no open workspace. */
export interface LibraryHand {
  readonly parts: WorkspaceParts;
  readonly openStorage: StorageFactory;
  /** Makes the client of a workspace that was found or made. */
  opened(found: FoundWorkspace, created?: boolean, more?: HowOpened): Client;
  openOrInit: CairnLibrary["openOrInit"];
}

/** Arguments of a verb of an open repository that opens workspaces, too. */
export interface RepositoryHand {
  readonly access: OpenRepository;
  readonly parts: WorkspaceParts;
}

/** Facts about how a call opened a workspace. */
export interface HowOpened {
  conversion?: Conversion | undefined;
  /** former path of a folder that was found again after a rename */
  followedFrom?: string | undefined;
}
