import { existsSync, readdirSync } from "node:fs";
import { dirname } from "node:path";
import { toCairnError } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "../../repository/blob-index.ts";
import { lostPacks, type NearPacks, packEnds } from "../../repository/near-packs.ts";
import { type FoundCopy, OtherCopies } from "../../repository/other-copies.ts";
import { packSizes } from "../../repository/storage/storage.ts";
import type { CallOptions } from "../contract.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/** Packs that the index of a repository lists and its storage has not: what was in them counts as absent where it is at hand. */

type Warned = CallOptions["onWarning"];

/**
 * Names of those that a local storage misses. The folders of packs are listed and no pack is looked at, which costs nothing
 * that is felt also where many are, or where the folder is mounted over a network. Empty far away, where that would take a
 * request for every thousand of them; where a folder cannot be listed, nothing is known to be missing, which is warned of.
 */
export function missingHere({ storage }: RepositoryAccess, index: BlobIndex, onWarning?: Warned): ReadonlySet<string> {
  const missing = new Set<string>();
  if (storage.localPath === undefined) return missing;
  const folders = new Map<string, string[]>();
  for (const [number, end] of packEnds(index).entries()) {
    if (end === 0) continue;
    const pack = objectIdOf(index.table.packId(number));
    const folder = dirname(storage.localPath("data", pack));
    const packs = folders.get(folder);
    if (packs === undefined) folders.set(folder, [pack]);
    else packs.push(pack);
  }
  try {
    for (const [folder, packs] of folders) {
      const there = new Set(namesIn(folder));
      for (const pack of packs) if (!there.has(pack)) missing.add(pack);
    }
    return missing;
  } catch (error) {
    onWarning?.(notKnown(error));
    return new Set();
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    // Without the folder of all, the repository's disk is not there.
    if ((error as NodeJS.ErrnoException).code === "ENOENT" && existsSync(dirname(folder))) return [];
    throw toCairnError(error, `list ${folder}`);
  }
}

function notKnown(error: unknown): string {
  return `whether all packs are there is not known: ${toCairnError(error).message}`;
}

/** Names of those that any storage misses, or has no more in full length; where it cannot be listed as above. */
export async function lostIn(
  { storage }: RepositoryAccess,
  index: BlobIndex,
  onWarning?: Warned,
): Promise<ReadonlySet<string>> {
  try {
    return new Set(lostPacks(index, await packSizes(storage)));
  } catch (error) {
    if (toCairnError(error).code === "interrupted") throw error;
    onWarning?.(notKnown(error));
    return new Set();
  }
}

/**
 * An index by which what was in these packs is absent, which is warned of; the same one where there are none. To be called
 * for one that was read under a lock: what it lists is there, or lost.
 */
export async function indexWithout(
  { location, repository }: RepositoryAccess,
  { index, lost }: { index: BlobIndex; lost: ReadonlySet<string> },
  { signal, onWarning }: CallOptions,
): Promise<BlobIndex> {
  if (lost.size === 0) return index;
  onWarning?.(
    `${location} has lost ${plural(lost.size, "pack")}: what is needed of that now is stored again; \`cairn backup verify\` says what else it costs`,
  );
  return BlobIndex.without(lost, repository, signal);
}

/** Says of each damaged pack that what it held is read from others. */
export function copiesOf(
  access: RepositoryAccess,
  { index, near }: { index: BlobIndex; near: NearPacks },
  options: CallOptions,
): OtherCopies {
  const { signal } = options;
  return new OtherCopies({
    repository: access.repository,
    index,
    near,
    signal,
    onFound: warnOfCopies(access, options),
  });
}

export function warnOfCopies({ location }: RepositoryAccess, { onWarning }: CallOptions): (copy: FoundCopy) => void {
  return ({ damagedPack }) =>
    onWarning?.(
      `pack ${damagedPack.slice(0, 12)} of ${location} is damaged or missing: what is needed of it is read from other packs, as far as they have it too; \`cairn backup repair packs\` mends that`,
    );
}

/** What lies in a pack that a local storage misses, and in another one too since it was stored again, is read from that. */
export async function readFromWhatIsThere(
  access: RepositoryAccess,
  index: BlobIndex,
  { signal }: CallOptions,
): Promise<void> {
  const missing = missingHere(access, index);
  if (missing.size > 0) index.readElsewhere(missing, await BlobIndex.without(missing, access.repository, signal));
}
