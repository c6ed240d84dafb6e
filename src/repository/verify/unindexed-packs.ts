import { throwIfAborted } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { eachIndexFile, type IndexFileContent } from "../index/index-set.ts";
import type { NearPacks } from "../read/near-packs.ts";
import { PackVerifier } from "./pack-verifier.ts";
import type { DamagedFile, Repository } from "../repository.ts";
import type { PackSizes } from "../storage/storage.ts";

/** Pack files in no index: what a killed writer left. Here alone is said which these are. */

export interface UnindexedPacks {
  /** Bytes by name. */
  readonly packs: PackSizes;
  /** Index files that cannot be read: what only they name is among the packs. */
  readonly damaged: readonly DamagedFile[];
}

/**
 * Takes out of `packs` (by name) those that an index file names; what all of them leave is in no index. Packs that
 * rustic has marked are named as well: it removes them, or takes them back into use.
 */
export function strikeNamed(packs: Map<string, number>, file: IndexFileContent): void {
  for (const pack of file.packs) packs.delete(objectIdOf(pack.id));
  for (const name of file.marked) packs.delete(name);
}

/**
 * Finds the pack files that are in no index. Where `index` lists all of them, as it mostly does, no index file is read;
 * what is marked it does not know.
 */
export async function findUnindexed(
  repository: Repository,
  stored: PackSizes,
  index: BlobIndex | null,
): Promise<UnindexedPacks> {
  const packs = new Map<string, number>();
  for (const [name, size] of stored)
    if (index === null || index.listings(Buffer.from(name, "hex")) === 0) packs.set(name, size);
  if (packs.size === 0) return { packs, damaged: [] };
  const names = (await repository.storage.list("index")).map(({ name }) => name);
  return { packs, damaged: await eachIndexFile(repository, names, (file) => strikeNamed(packs, file)) };
}

/**
 * Those of these packs in no index that are not what their names say, all of which are read. Listed again as they are, their
 * damage would pass for content.
 */
export async function damagedOf(
  packs: PackSizes,
  { repository, near, signal }: { repository: Repository; near: NearPacks; signal: AbortSignal | undefined },
): Promise<string[]> {
  const verifier = new PackVerifier(repository.keys);
  const damaged: string[] = [];
  for (const [name, size] of packs) {
    throwIfAborted(signal);
    const isWhole = (descriptor: number): boolean =>
      verifier
        .verify({ descriptor, size, id: Buffer.from(name, "hex") })
        .every(({ kind }) => kind !== "name" && kind !== "size");
    if (!(await near.reading({ pack: name, offset: 0, length: size }, isWhole, signal))) damaged.push(name);
  }
  return damaged;
}
