import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { withPipes } from "../../fs/child-pipes.ts";
import type { Machine } from "./machine.ts";

/**
 * Does some work during which a guest is paused. Beside it stands a process that settles the machine when this one is killed,
 * so that no guest stays paused unnoticed.
 */
export async function watched<T>(machine: Machine, work: () => Promise<T>): Promise<T> {
  const program = fileURLToPath(new URL("./machine-worker.ts", import.meta.url));
  const child: ChildProcess = withPipes(
    fork(program, [machine.root, machine.name], {
      detached: true,
      execArgv: ["--disable-warning=ExperimentalWarning"],
      // A failpoint is for the process that is killed.
      env: { PATH: process.env["PATH"] },
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    }),
    "a process that watches over a paused machine",
  );
  child.on("error", () => undefined);
  child.unref();
  child.channel?.unref();
  try {
    return await work();
  } finally {
    // One that has just ended is told nothing.
    if (child.connected) child.send("done", () => child.disconnect());
  }
}
