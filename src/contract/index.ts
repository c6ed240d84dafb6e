import type { ControlId } from "../ids.ts";
import * as bundles from "./bundles.ts";
import * as care from "./care.ts";
import { CONTEXT_VERBS } from "./context.ts";
import * as databases from "./databases.ts";
import * as directories from "./export-directory.ts";
import { MACHINE_VERBS } from "./machines.ts";
import * as looking from "./looking.ts";
import * as points from "./points.ts";
import {
  backupRepository,
  createBackup,
  initRepository,
  openRepository,
  restoreBackup,
  setBackupRepository,
  verifyReceipt,
} from "./repositories.ts";
import { custom, place } from "./schema.ts";
import { arg, type Methods, verb } from "./verb.ts";
import type { Conversion, EngineReason, EngineType, WorkspaceRef } from "./words.ts";

/**
 * Every verb with its input, output and errors. Results have snake_case names and are what `--json` prints; options are
 * camelCase. Sizes are bytes, durations milliseconds, instants ISO 8601 in UTC. Paths are relative to the workspace's root
 * and without a leading `./`; the root is "". A list that chooses names something: an empty one is `usage`.
 */
export type * from "./bundles.ts";
export type * from "./care.ts";
export type * from "./context.ts";
export type * from "./databases.ts";
export type * from "./export-directory.ts";
export type * from "./looking.ts";
export type * from "./machines.ts";
export type * from "./points.ts";
export type * from "./repositories.ts";
export type * from "./service.ts";
export type * from "./snapshots.ts";
export type * from "./words.ts";

/** Verbs of one workspace, by the name that they have in the library. */
export const CLIENT_VERBS = {
  workspacePath: care.workspacePath,
  save: points.save,
  importTree: points.importTree,
  restore: points.restore,
  planRestore: points.planRestore,
  undo: points.undo,
  planUndo: points.planUndo,
  restoreLatest: points.restoreLatest,
  history: looking.history,
  why: looking.why,
  latestSavePoint: looking.latestSavePoint,
  hasSavePoints: looking.hasSavePoints,
  resolve: looking.resolve,
  status: looking.status,
  diff: looking.diff,
  diffDatabase: looking.diffDatabase,
  show: looking.show,
  walk: looking.walk,
  read: looking.read,
  verify: looking.verify,
  verifyAll: looking.verifyAll,
  fork: points.fork,
  exportPoint: directories.exportPoint,
  view: points.view,
  listViews: points.listViews,
  closeView: points.closeView,
  pin: points.pin,
  unpin: points.unpin,
  tag: points.tag,
  previewCleanup: looking.previewCleanup,
  runCleanup: looking.runCleanup,
  createBackup,
  restoreBackup,
  backupRepository,
  setBackupRepository,
  run: points.run,
  doctor: care.doctor,
  store: care.store,
  policy: looking.policy,
  setPolicy: looking.setPolicy,
  setEngine: care.setEngine,
  seal: care.seal,
  sealWhenIdle: care.sealWhenIdle,
  shortIds: looking.shortIds,
  release: care.release,
};

/**
 * An open control directory with one of its workspaces. Once the workspace is relocated, every call fails with
 * `conflict` (`details.relocated_to`); once it is released, with `not_a_workspace`.
 */
export interface Client extends Methods<typeof CLIENT_VERBS> {
  /** Absolute: the root of a self-contained workspace, else the workspace's folder. */
  readonly repoRoot: string;
  readonly repoId: ControlId;
  readonly engineType: EngineType;
  readonly controlDirectory: string;
  readonly workspace: WorkspaceRef;
  /** True when this call made the control directory. */
  readonly created: boolean;
  readonly engineReasons: readonly EngineReason[];
  /** The path from which this call has followed the folder, which was renamed; null where it was not. */
  readonly followedFrom: string | null;
  /** The conversion of the folder by this call; null where there was none. */
  readonly conversion: Conversion | null;
  /** Resolves when nothing goes on any more: no sealing, no removal of a tree that a restore has exchanged. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const client = custom<Client>("Client", "an object", () => true);
/** Verbs that need no open workspace. Paths are absolute, or relative to the current directory. */
export const LIBRARY_VERBS = {
  detectEngine: care.detectEngine,
  validateEngine: care.validateEngine,
  init: verb({
    about: "Creates a self-contained workspace: `<path>/main` and `<path>/.cairn`.",
    takes: [arg("path", place())],
    options: care.InitOptions,
    output: client,
    errors: ["already_exists"],
  }),
  adopt: verb({
    about: "Makes a folder the workspace `main`, without moving any file.",
    takes: [arg("path", place())],
    options: care.AdoptOptions,
    output: client,
    errors: ["already_exists", "refused"],
  }),
  open: verb({
    about: "Opens a workspace, a self-contained root or a control directory.",
    takes: [arg("path", place())],
    options: care.OpenOptions,
    output: client,
    errors: ["not_a_workspace"],
  }),
  openOrInit: verb({
    about:
      "Opens a workspace, or creates a self-contained one if there is none. Concurrent calls end with the same id.",
    takes: [arg("path", place())],
    options: care.InitOptions,
    output: client,
  }),
  openOrAdopt: verb({
    about: "Opens a workspace, or adopts the folder if it is none.",
    takes: [arg("path", place())],
    options: care.AdoptOptions,
    output: client,
    errors: ["refused"],
  }),
  find: care.find,
  initRepository,
  openRepository,
  verifyReceipt,
  inspect: care.inspect,
  listWorkspaces: care.listWorkspaces,
  relocate: care.relocate,
  forget: care.forgetFolder,
  inspectBundle: bundles.inspectBundle,
  verifyBundle: bundles.verifyBundle,
  diffBundles: bundles.diffBundles,
  extractBundle: bundles.extractBundle,
  convertBundle: bundles.convertBundle,
  ...CONTEXT_VERBS,
  ...MACHINE_VERBS,
  importDirectory: directories.importDirectory,
  listDatabases: databases.listDatabases,
  captureDatabase: databases.captureDatabase,
  restoreDatabase: databases.restoreDatabase,
};

export interface CairnLibrary extends Methods<typeof LIBRARY_VERBS> {}
