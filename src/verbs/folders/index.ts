/** Verbs that start to keep a folder, find it, move it and open its records. */
export { detectEngine, validateEngine } from "./engine.ts";
export { find } from "./find.ts";
export { forget } from "./forget.ts";
export { ImportDirectoryOptions, ImportDirectoryResult, importDirectory } from "./import-directory.ts";
export { init } from "./init.ts";
export { InspectOptions, InspectResult, inspect } from "./inspect.ts";
export { listWorkspaces } from "./list-workspaces.ts";
export { initRepository, openRepository } from "./open-repository.ts";
export { open, openOrInit } from "./open.ts";
export { relocate } from "./relocate.ts";
export { verifyReceipt } from "./verify-receipt.ts";
