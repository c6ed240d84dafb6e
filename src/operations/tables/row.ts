import type { OpenRepository } from "../../backup/open/open-repository.ts";
import type { CairnLibrary, Client, CLIENT_VERBS, LIBRARY_VERBS } from "../../contract/index.ts";
import type { REPOSITORY_VERBS } from "../../contract/repositories.ts";
import type { Call, Method } from "../../contract/verb.ts";
import type { Conversion } from "../../contract/words.ts";
import type { StorageFactory } from "../../repository/storage/location.ts";
import type { ControlPaths } from "../../workspace/place/control-layout.ts";
import type { Removals } from "../../workspace/points/held-trees.ts";
import type { FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import type { SealProblem } from "../../workspace/save/seal.ts";
import type { Workspace, WorkspaceParts } from "../../workspace/open/workspace.ts";

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

export type Answer<V> = ReturnType<Method<V>> | Awaited<ReturnType<Method<V>>>;

/** A verb of a client: what it needs, and the function that carries it out. */
export type Row<V> =
  | {
      /** a workspace */
      readonly needs?: undefined;
      /** It may need contents or digests: a point that only a clone holds is sealed, and the verb begins anew. */
      readonly seals?: boolean | ((...given: Call<V>) => boolean);
      /** It only reads: a pack that another process moved away meanwhile is looked up once more. */
      readonly reads?: boolean;
      run(hand: Hand, ...given: Call<V>): Answer<V>;
    }
  | { readonly needs: "control"; run(control: ControlPaths, ...given: Call<V>): Answer<V> }
  | { readonly needs: "nothing"; run(opened: Opened, ...given: Call<V>): Answer<V> };

/** Verbs of a client but for those that are about the client itself. */
export type ClientRows = {
  readonly [Name in Exclude<keyof typeof CLIENT_VERBS, "sealWhenIdle" | "workspacePath">]: Row<
    (typeof CLIENT_VERBS)[Name]
  >;
};

/** A verb of a repository, on a view of it that belongs to the call; one that streams hands over piece by piece. */
type RepositoryRow<V> =
  ReturnType<Method<V>> extends AsyncIterable<infer Piece>
    ? (access: OpenRepository, hand: (piece: Piece) => Promise<void>, ...given: Call<V>) => Promise<void>
    : (access: OpenRepository, ...given: Call<V>) => ReturnType<Method<V>>;

export type RepositoryRows = {
  readonly [Name in keyof typeof REPOSITORY_VERBS]: RepositoryRow<(typeof REPOSITORY_VERBS)[Name]>;
};

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

export type LibraryRows = {
  readonly [Name in keyof typeof LIBRARY_VERBS]: (
    hand: LibraryHand,
    ...given: Call<(typeof LIBRARY_VERBS)[Name]>
  ) => Answer<(typeof LIBRARY_VERBS)[Name]>;
};
