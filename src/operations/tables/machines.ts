import {
  createMachine,
  inspectMachine,
  listMachines,
  removeMachine,
  startMachine,
  stopMachine,
} from "../machines/life.ts";
import { cloneMachine, exportMachine, restoreMachine, saveMachine } from "../machines/states.ts";
import type { LibraryRows } from "./row.ts";

/** Verbs of virtual machines. */
export const MACHINE_ROWS = {
  createMachine: (_hand, root, name, options) => createMachine(root, name, options),
  startMachine: (_hand, root, name, options) => startMachine(root, name, options),
  stopMachine: (_hand, root, name, options) => stopMachine(root, name, options),
  listMachines: (_hand, root, options) => listMachines(root, options),
  inspectMachine: (_hand, root, name) => inspectMachine(root, name),
  removeMachine,
  saveMachine,
  exportMachine,
  cloneMachine,
  restoreMachine,
} satisfies Partial<LibraryRows>;
