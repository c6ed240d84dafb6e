/** Verbs that make save points, go back to them and mark them. */
export { save } from "./save.ts";
export { importTree } from "./import-tree.ts";
export { restore, planRestore, restoreLatest } from "./restore.ts";
export { undo, planUndo } from "./undo.ts";
export { fork } from "./fork.ts";
export { exportPoint } from "./export-point.ts";
export { view, listViews, closeView } from "./view.ts";
export { pin, unpin } from "./pin.ts";
export { tag } from "./tag.ts";
export { run } from "./run.ts";
