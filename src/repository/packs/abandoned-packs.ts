import { closeSync, fstatSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { type MasterKeys, openMessage } from "../../crypto/seal.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { digestOfFile } from "../../fs/file-digest.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { namesIn } from "../../fs/paths/names-in.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { deadWorkDirectories, leaveWorkDirectory } from "../../fs/work-directory.ts";
import { newPacer } from "../../pacer.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { readPackHeader } from "./pack-read.ts";
import { COMPLETE_PACK, type FinishedPack } from "./pack-writer.ts";

/**
 * Packs that a killed or aborted writer completed but did not publish, in the writer's work directory and no
 * repository. The next save into the same store uses these packs, so that it stores less.
 */

export interface AbandonedPacksOptions {
  readonly keys: MasterKeys;
  /** An index in a session (`beginSession`). */
  readonly index: BlobIndex;
  /** The folder of all work directories of the store. */
  readonly parent: string;
  /** The caller's own work directory; made when needed. */
  readonly directory: string;
  readonly signal: AbortSignal | undefined;
}

/** Tells whether a work directory has a complete pack, which a save could use. */
export function holdsCompletePack(directory: string): boolean {
  return namesIn(directory).some((name) => COMPLETE_PACK.test(name));
}

/**
 * Gives the packs of dead writers to the index's session, then runs `work`, which stores new content. An aborted call
 * keeps its complete packs for the next call. If the disk is full, removes the packs of dead writers and runs `work`
 * again (`again`).
 */
export async function withAbandonedPacks<T>(
  options: AbandonedPacksOptions,
  work: (again: boolean) => Promise<T>,
): Promise<T> {
  const { index, directory, signal } = options;
  try {
    const packs = await takeAbandoned(options);
    if (packs.length === 0) return await work(false);
    index.endSession();
    index.beginSession(packs);
    try {
      return await work(false);
    } catch (error) {
      if (toCairnError(error).code !== "no_space") throw error;
    }
    clearAway(directory);
    index.endSession();
    index.beginSession();
    return await work(true);
  } catch (error) {
    if (signal?.aborted === true && holdsCompletePack(directory)) leaveWorkDirectory(directory);
    throw error;
  }
}

/** Moves complete packs of dead writers into the caller's work directory. Removes damaged packs, and the writers' directories. */
async function takeAbandoned({ parent, directory, keys, signal }: AbandonedPacksOptions): Promise<FinishedPack[]> {
  const packs: FinishedPack[] = [];
  const pace = newPacer(signal);
  for (const dead of deadWorkDirectories(parent)) {
    for (const name of namesIn(dead)) {
      const id = COMPLETE_PACK.exec(name)?.[1];
      if (id === undefined) continue;
      await pace();
      const path = join(directory, name);
      if (!moved(join(dead, name), path)) continue;
      failpoint("abandoned.moved");
      const pack = await provenPack(path, id, keys);
      if (pack === null) clearAway(path);
      else packs.push(pack);
    }
    clearAway(dead);
  }
  failpoint("abandoned.taken");
  return packs;
}

/** Returns false if another process was faster, or if this user cannot move the file. */
function moved(from: string, to: string): boolean {
  try {
    makeFolder(dirname(to));
    renameSync(from, to);
    return true;
  } catch {
    return false;
  }
}

/** A stop between two pieces of a pack would look like damage. */
const withoutPause = async (): Promise<void> => undefined;

/** Reads a whole file. Returns null unless the file is the pack with this id: after a power cut it may lack bytes. */
async function provenPack(path: string, id: string, keys: MasterKeys): Promise<FinishedPack | null> {
  let descriptor = -1;
  try {
    descriptor = openRegular(path);
    const { size } = fstatSync(descriptor);
    const { blobs, trailer } = readPackHeader(descriptor, size, keys);
    if (blobs.length === 0 || (await digestOfFile(path, withoutPause)).sha256 !== id) return null;
    const header = Uint8Array.from(openMessage(keys, trailer.subarray(0, -4)));
    return { id: Buffer.from(id, "hex"), path, size, type: blobs[0]!.type, header, blobs: blobs.length };
  } catch {
    return null;
  } finally {
    if (descriptor >= 0) closeSync(descriptor);
  }
}
