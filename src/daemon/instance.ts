import { chmodSync } from "node:fs";
import { join } from "node:path";
import { CairnError } from "../errors.ts";
import { durableMkdir } from "../fs/durable.ts";
import { acquireLock, type Lock } from "../fs/lock.ts";
import { describeOwner } from "../fs/lock-owner.ts";
import { readOwner } from "../fs/owner-files.ts";
import { printablePath } from "../fs/paths/safe-path.ts";

/** Name of the lock in the state directory. */
export const LOCK = "daemon.lock";

/** The one daemon of a state directory. */
export interface Instance extends Disposable {
  /** The previous daemon, in words, if it was killed; null after an orderly end. */
  killed: string | null;
}

/**
 * Takes the state directory for this process, and makes it if it is missing. An owner record in the lock means that the
 * last daemon was killed, which is told once. Throws `busy` if another daemon has the directory.
 */
export async function takeInstance(state: string): Promise<Instance> {
  // Users reach mounts below this directory through it.
  const mode = process.geteuid?.() === 0 ? 0o711 : 0o700;
  if (durableMkdir(state, { mode })) chmodSync(state, mode);
  const path = join(state, LOCK);
  const left = readOwner(path);
  let lock: Lock;
  try {
    lock = await acquireLock(path, { timeoutMs: 0, purpose: "daemon" });
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "busy") throw error;
    throw new CairnError("busy", `another daemon serves ${printablePath(state)}: ${describeOwner(readOwner(path))}`, {
      hint: "stop the other daemon first, or name another state directory in CAIRN_STATE_DIR; nothing was changed",
      cause: error,
    });
  }
  const killed = left === null || left.released === true ? null : describeOwner(left);
  return { killed, [Symbol.dispose]: () => lock.release() };
}
