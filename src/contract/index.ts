import type { ControlId } from "../ids.ts";
import { custom } from "./schema.ts";
import type { Conversion, EngineReason, EngineType, WorkspaceRef } from "./words.ts";

/**
 * Every verb with its input, output and errors. Results have snake_case names and are the data of `--json`; options are
 * camelCase. Sizes are bytes, durations milliseconds, instants ISO 8601 in UTC. Paths are relative to the workspace's
 * root and without a leading `./`; the root is "". A list that selects must not be empty: an empty list is `usage`.
 */
export type * from "./bundles.ts";
export type * from "./care.ts";
export type * from "./context.ts";
export type * from "./databases.ts";
export type * from "./export-directory.ts";
export type * from "./looking.ts";
export type * from "./machines.ts";
export type * from "./msgvault.ts";
export type * from "./points.ts";
export type * from "./repositories.ts";
export type * from "./service.ts";
export type * from "./snapshots.ts";
export type * from "./turns.ts";
export type * from "./words.ts";

/**
 * An open control directory with one of its workspaces. Once the workspace is relocated, every call fails with
 * `conflict` (`details.relocated_to`); once it is released, with `not_a_workspace`. `verbs/index.ts` adds its verbs.
 */
export interface Client {
  /** Absolute: the root of a self-contained workspace, else the workspace's folder. */
  readonly repoRoot: string;
  readonly repoId: ControlId;
  readonly engineType: EngineType;
  readonly controlDirectory: string;
  readonly workspace: WorkspaceRef;
  /** True if this call made the control directory. */
  readonly created: boolean;
  readonly engineReasons: readonly EngineReason[];
  /** The former path of the folder, if this call found it renamed; else null. */
  readonly followedFrom: string | null;
  /** The conversion of the folder by this call, or null. */
  readonly conversion: Conversion | null;
  /** Resolves when all work has ended: sealing, and the removal of trees that a restore has exchanged. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export const client = custom<Client>("Client", "an object", () => true);

/** Verbs that need no open workspace, which `verbs/index.ts` adds. Paths are absolute, or relative to the current directory. */
export interface CairnLibrary {}
