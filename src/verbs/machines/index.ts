/** Verbs of virtual machines, which are in one folder by name. */
export { cloneMachine } from "./clone-machine.ts";
export { createMachine } from "./create-machine.ts";
export { exportMachine } from "./export-machine.ts";
export { hibernateMachine } from "./hibernate-machine.ts";
export { inspectMachine } from "./inspect-machine.ts";
export { listMachines } from "./list-machines.ts";
export { removeMachine } from "./remove-machine.ts";
export { restoreMachine } from "./restore-machine.ts";
export { saveMachine } from "./save-machine.ts";
export { setMachine } from "./set-machine.ts";
export { startMachine } from "./start-machine.ts";
export { stopMachine } from "./stop-machine.ts";
