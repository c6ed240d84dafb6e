import type { CairnLibrary, Client } from "../contract/index.ts";
import type { Conversion } from "../contract/words.ts";
import type { StorageFactory } from "../repository/storage/location.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";
import type { Removals } from "../workspace/points/held-trees.ts";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import type { SealProblem } from "../workspace/save/seal.ts";
import type { Workspace, WorkspaceParts } from "../workspace/open/workspace.ts";

/** Parts with which a verb is carried out on the workspace that its `workspaceName` means. */
export interface Hand {
  readonly workspace: Workspace;
  readonly parts: WorkspaceParts;
  /** points that could not be sealed, of a verb that needed sealed ones */
  readonly unsealed: readonly SealProblem[];
}

/** Parts with which a verb is carried out that opens a workspace by itself, or none. */
export interface Opened {
  readonly client: Client;
  readonly removals: Removals;
  control(): ControlPaths;
  /** Opens a workspace for some work. */
  within<T>(name: string | undefined, work: (workspace: Workspace) => Promise<T>): Promise<T>;
}

/** Parts with which a verb is carried out that needs no open workspace. */
export interface LibraryHand {
  readonly parts: WorkspaceParts;
  readonly openStorage: StorageFactory;
  /** Makes the client of a workspace that was found or adopted. */
  opened(found: FoundWorkspace, created?: boolean, more?: HowOpened): Client;
  openOrAdopt: CairnLibrary["openOrAdopt"];
}

/** Says what a call did to open a workspace. */
export interface HowOpened {
  conversion?: Conversion | undefined;
  /** the path from which a folder that was renamed was followed */
  followedFrom?: string | undefined;
}
