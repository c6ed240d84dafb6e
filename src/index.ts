/// <reference lib="esnext.disposable" preserve="true" />
/** The public library. Everything exported here is promised: names, meanings and error codes. */
// First, because it throws on an old Node. The other imports need no newer Node than the version that it requires.
import "./node-version.ts";
import type { CairnLibrary } from "./contract/index.ts";
import { LIBRARY_VERBS } from "./verbs/index.ts";

export { CairnError, ERROR_TABLE } from "./errors.ts";
export type { ErrorCode, ErrorOptions, ErrorRow } from "./errors.ts";
export type { ControlId, SavePointId, WorkspaceId } from "./ids.ts";
export type * from "./contract/index.ts";
export type * from "./verbs/schemas.ts";

let library: Promise<CairnLibrary> | undefined;

type Call = (...given: unknown[]) => Promise<unknown>;

/** A verb of the library, which is loaded by the first call. */
function lazily(name: string): Call {
  return async (...given) => {
    library ??= import("./compose.ts").then(async ({ openLibrary }) => openLibrary({ forPrograms: true }));
    return ((await library) as unknown as Record<string, Call>)[name]!(...given);
  };
}

export const {
  addToContext,
  backupContext,
  captureDatabase,
  checkContext,
  cloneMachine,
  convertBundle,
  createMachine,
  detectEngine,
  diffBundles,
  exportBundle,
  exportMachine,
  extractBundle,
  find,
  findInContext,
  forget,
  hibernateMachine,
  importBundle,
  importDirectory,
  importMsgvault,
  init,
  initContext,
  initRepository,
  inspect,
  inspectBundle,
  inspectMachine,
  listContext,
  listDatabases,
  listMachines,
  listMsgvault,
  listWorkspaces,
  open,
  openOrInit,
  openRepository,
  readContext,
  reindexContext,
  relocate,
  removeFromContext,
  removeMachine,
  restoreContext,
  restoreDatabase,
  restoreMachine,
  saveMachine,
  setMachine,
  startMachine,
  stopMachine,
  validateEngine,
  verifyBundle,
  verifyReceipt,
} = Object.fromEntries(Object.keys(LIBRARY_VERBS).map((name) => [name, lazily(name)])) as unknown as CairnLibrary;
