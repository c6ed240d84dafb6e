import type { BlobIndex } from "../../repository/blob-index.ts";
import { ForwardedPacks } from "../../repository/forwarded-packs.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import type { CallOptions } from "../contract.ts";
import { adding, type Beside } from "./look.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/** A repository that is ready for a backup, and takes what a save before it stores anew. */
export interface Forwarding extends Beside {
  /** When it began, milliseconds since 1970. */
  started: number;
  lock: RepositoryLock;
  /** It gets what was forwarded with `packs.finish()`. */
  index: BlobIndex;
  /** Null where what the store holds cannot be passed on as it is: version 1 knows no compression. */
  packs: ForwardedPacks | null;
}

/** A repository after the save. */
export interface ForwardedSave extends Forwarding {
  /** False where the folder was as its newest point, which is backed up then: of that the store may have lost something. */
  isNewPoint: boolean;
}

/**
 * Runs a save and its backup under one shared lock of the repository, so that the folder is read, compressed and written
 * in one pass. What was forwarded when `work` throws is in no snapshot: the next backup finds what was indexed.
 */
export async function withForwarding<T>(
  access: RepositoryAccess,
  options: CallOptions,
  work: (to: Forwarding) => Promise<T>,
): Promise<T> {
  const started = Date.now();
  return adding(access, options, async (lock, beside) => {
    const { index } = beside;
    const packs = access.repository.version === 1 ? null : forwardedTo(access, index, lock);
    try {
      return await work({ started, lock, ...beside, packs });
    } catch (error) {
      await packs?.abort();
      throw error;
    } finally {
      packs?.clear();
    }
  });
}

function forwardedTo(access: RepositoryAccess, index: BlobIndex, lock: RepositoryLock): ForwardedPacks {
  const { repository } = access;
  return new ForwardedPacks({
    repository,
    index,
    directory: access.workDirectory(),
    stillHeld: async () => lock.recheck(),
  });
}
