import { CairnError } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";

/** The one of these names that a word means: itself or a prefix of two digits at least. `not_found`, `ambiguous`. */
export function oneOf(kind: string, word: string, names: readonly string[]): string {
  const fits = /^[0-9a-f]{2,64}$/.test(word) ? [...new Set(names)].filter((name) => name.startsWith(word)) : [];
  if (fits.length === 1) return fits[0]!;
  if (fits.length === 0) throw new CairnError("not_found", `no ${kind} ${JSON.stringify(word.slice(0, 80))}`);
  throw new CairnError("ambiguous", `${word} fits more than one ${kind}`, { hint: "give more digits" });
}

/** The first two ids of blobs that begin so; `type` null: of either type. */
export function blobsLike(index: BlobIndex, prefix: string, type: number | null): string[] {
  const names: string[] = [];
  for (let entry = 0; entry < index.count && names.length < 2; entry++) {
    if (type !== null && index.table.typeOf(entry) !== type) continue;
    const name = objectIdOf(index.idOf(entry));
    if (name.startsWith(prefix)) names.push(name);
  }
  return names;
}
