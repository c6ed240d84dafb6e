import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { withPipes } from "../../fs/child-pipes.ts";
import type { Machine } from "./machine.ts";

/**
 * Does some work during which a guest is paused. Beside it stands a process that settles the machine when the work fails or this
 * process is killed, so that no guest stays paused unnoticed.
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
  // One that is let go of without a word settles the machine once its lock is free.
  const letGo = (): void => void (child.connected && child.disconnect());
  try {
    const done = await work();
    if (child.connected) child.send("done", letGo);
    return done;
  } catch (error) {
    letGo();
    throw error;
  }
}
