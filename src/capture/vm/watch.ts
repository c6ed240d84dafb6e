import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { withPipes } from "../../fs/child-pipes.ts";
import type { Machine } from "./machine.ts";

/**
 * A process beside this one, which settles the machine when this one is killed, or lets it go without having said that all is
 * done: so no guest stays paused unnoticed.
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
        // A failpoint is for the process that is killed.
        env: { PATH: process.env["PATH"] },
        stdio: ["ignore", "ignore", "ignore", "ipc"],
      }),
      "a process that watches over a paused machine",
    );
    this.#child.on("error", () => undefined);
    this.#child.unref();
    this.#child.channel?.unref();
  }

  /** To be called when the guest runs, or there is none. */
  done(): void {
    this.#isDone = true;
    if (this.#child.connected) this.#child.send("done", () => this.#letGo());
  }

  /** Gives it up where `done` was not called: it settles the machine once its lock is free. */
  [Symbol.dispose](): void {
    if (!this.#isDone) this.#letGo();
  }

  #letGo(): void {
    if (this.#child.connected) this.#child.disconnect();
  }
}

/** Does some work during which a guest is paused. */
export async function watched<T>(machine: Machine, work: () => Promise<T>): Promise<T> {
  using watcher = new Watcher(machine);
  const result = await work();
  watcher.done();
  return result;
}
