/** Verbs that make save points, go back to them and mark them. */
export { AdoptForkOptions, adoptFork, planAdoptFork, planRemoveFork, removeFork } from "./adopt-fork.ts";
export { BisectOptions, BisectResult, BisectTest, bisect } from "./bisect.ts";
export { exportPoint } from "./export-point.ts";
export { fork } from "./fork.ts";
export { MsgvaultPoints, importMsgvaultPoints } from "./import-msgvault.ts";
export { importTree } from "./import-tree.ts";
export { pin, unpin } from "./pin.ts";
export { planRestore, restore, restoreLatest } from "./restore.ts";
export { RewindOptions, planRewind, rewind } from "./rewind.ts";
export { run } from "./run.ts";
export { save } from "./save.ts";
export { tag } from "./tag.ts";
export { operations, planRedo, planUndo, redo, undo } from "./undo.ts";
export { closeView, listViews, view } from "./view.ts";
