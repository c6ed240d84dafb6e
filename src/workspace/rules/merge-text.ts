import { mergeDiff3 } from "node-diff3";
import { sha256 } from "../../crypto/hash.ts";
import { hex } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { readRegular } from "../../fs/regular-file.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { bytesOf, type State } from "./git-view.ts";
import type { MadeContents } from "./made-contents.ts";

/** Merges text files that both sides of a fork changed, line by line. */

/** Larger files are conflicts: nobody writes such texts, and the comparison takes long. */
const MOST_BYTES = 1 << 20;
/** Bytes that a merged text may have. */
const MOST_MERGED = 2 * MOST_BYTES;

export class TextMerge {
  readonly #present: State;
  readonly #source: TreeSource;
  readonly #made: MadeContents;
  /** the merged files, for the record of the operation */
  readonly merged: { path: Uint8Array; sha256: Uint8Array }[] = [];

  /** `source` reads the content of all points: they are of one store. */
  constructor(present: State, source: TreeSource, made: MadeContents) {
    this.#present = present;
    this.#source = source;
    this.#made = made;
  }

  /** Returns `ours` with the merged content; null if the sides are no texts, or changed the same lines. */
  merge(
    path: Uint8Array,
    { base, ours, theirs }: Readonly<Record<"base" | "ours" | "theirs", TreeNode>>,
  ): TreeNode | null {
    const points = { source: this.#source };
    const a = linesOf(this.#present, path, ours);
    const [o, b] = [base, theirs].map((node) => linesOf(points, path, node));
    if (!a || !o || !b) return null;
    const { conflict: isConflict, result } = mergeDiff3(a, o, b, { excludeFalseConflicts: true });
    if (isConflict) return null;
    const made = this.#made.node(ours, Buffer.from((result as string[]).join("")));
    this.merged.push({ path: Uint8Array.from(path), sha256: made.content });
    return made;
  }
}

/** Tells if a file's bytes have the SHA-256 in hex that a merged text had. */
export function isMerged(place: Buffer, known: string): boolean {
  try {
    return hex(sha256(readRegular(place, { limit: MOST_MERGED }))) === known;
  } catch {
    return false;
  }
}

function linesOf(state: Pick<State, "root" | "source">, path: Uint8Array, node: TreeNode): string[] | null {
  if (node.type !== "file" || node.size > MOST_BYTES) return null;
  const bytes = bytesOf(state, path, node);
  if (bytes.includes(0)) return null;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes).split(/(?<=\n)/);
  } catch {
    return null;
  }
}
