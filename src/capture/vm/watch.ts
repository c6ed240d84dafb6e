import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { withPipes } from "../../fs/child-pipes.ts";
import type { Machine } from "./machine.ts";

/**
 * A watcher process beside this one, which resumes the machine if this one is killed or releases it without `done`, so
 * that no guest stays paused unnoticed.
 */
export class Watcher {
  readonly #child: ChildProcess;
  #isDone = false;

  constructor(machine: Machine) {
    const program = fileURLToPath(new URL("./machine-worker.ts", import.meta.url));
    this.#child = withPipes(
      fork(program, [machine.root, machine.name], {
        detached: true,
        execArgv: ["--disable-warning=ExperimentalWarning"],
        // A failpoint is meant for the main process only.
        env: { PATH: process.env["PATH"] },
        stdio: ["ignore", "ignore", "ignore", "ipc"],
      }),
      "a process that watches over a paused machine",
    );
    this.#child.on("error", () => undefined);
    this.#child.unref();
    this.#child.channel?.unref();
  }

  /** To be called when the guest runs, or if there is none. */
  done(): void {
    this.#isDone = true;
    if (this.#child.connected) this.#child.send("done", () => this.#letGo());
  }

  /** Releases the watcher. Without `done` it resumes the machine once the lock is free. */
  [Symbol.dispose](): void {
    if (!this.#isDone) this.#letGo();
  }

  #letGo(): void {
    if (this.#child.connected) this.#child.disconnect();
  }
}

/** Runs work during which a guest is paused. */
export async function watched<T>(machine: Machine, work: () => Promise<T>): Promise<T> {
  using watcher = new Watcher(machine);
  const result = await work();
  watcher.done();
  return result;
}
