import { throwIfAborted } from "../../errors.ts";
import { removeDeadLocks } from "../../repository/locks.ts";
import type { CallOptions, UnlockResult } from "../contract.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/** Removes locks that count no more; with `all` every one, also of processes that are at work: then they may lose what they do. */
export async function unlock(
  access: RepositoryAccess,
  options: CallOptions & { all?: boolean },
): Promise<UnlockResult> {
  throwIfAborted(options.signal);
  const { storage, repository } = access;
  const before = (await storage.list("locks")).length;
  await removeDeadLocks(repository);
  if (options.all === true) {
    // One that goes by itself meanwhile is as good.
    for (const { name } of await storage.list("locks")) await storage.remove("locks", name).catch(() => undefined);
  }
  const held = (await storage.list("locks")).length;
  return { ...access.info, removed: Math.max(0, before - held), held };
}
