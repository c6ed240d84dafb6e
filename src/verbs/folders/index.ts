/** Verbs that begin to keep a folder, find it, move it and open what was kept. */
export { init } from "./init.ts";
export { adopt } from "./adopt.ts";
export { open, openOrInit, openOrAdopt } from "./open.ts";
export { find } from "./find.ts";
export { listWorkspaces } from "./list-workspaces.ts";
export { relocate } from "./relocate.ts";
export { forget } from "./forget.ts";
export { detectEngine, validateEngine } from "./engine.ts";
export { inspect } from "./inspect.ts";
export { importDirectory } from "./import-directory.ts";
export { initRepository, openRepository } from "./open-repository.ts";
export { verifyReceipt } from "./verify-receipt.ts";
