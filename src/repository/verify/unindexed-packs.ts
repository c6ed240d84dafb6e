import { throwIfAborted } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { eachIndexFile, type IndexFileContent } from "../index/index-set.ts";
import type { NearPacks } from "../read/near-packs.ts";
import { PackVerifier } from "./pack-verifier.ts";
import type { DamagedFile, Repository } from "../repository.ts";
import type { PackSizes } from "../storage/storage.ts";

/** Packs that no index lists: killed writers left them. */

export interface UnindexedPacks {
  /** Bytes of each pack, by name. */
  readonly packs: PackSizes;
  /** Unreadable index files: packs that only they list are among `packs`. */
  readonly damaged: readonly DamagedFile[];
}

/**
 * Removes from `packs` (by name) all packs that an index file lists. After all index files the rest is in no index.
 * Packs that rustic has marked count as listed: rustic removes them or uses them again.
 */
export function strikeNamed(packs: Map<string, number>, file: IndexFileContent): void {
  for (const pack of file.packs) packs.delete(objectIdOf(pack.id));
  for (const name of file.marked) packs.delete(name);
}

/**
 * Finds packs that no index lists. If `index` lists all stored packs, as usual, no index file is read. `index` does not
 * have marked packs.
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
 * Reads these unindexed packs and returns those that do not match their names. Indexing them would present damage as
 * content.
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
