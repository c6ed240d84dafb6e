import { mergeDiff3 } from "node-diff3";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { MadeContents } from "./made-contents.ts";

/** Merges text files that both sides of a fork changed, line by line. */

/** Larger files are conflicts: nobody writes such texts, and the comparison takes long. */
const MOST_BYTES = 1 << 20;
/** Bytes that a merged text may have. */
export const MOST_MERGED = 2 * MOST_BYTES;

export class TextMerge {
  readonly #source: TreeSource;
  readonly #made: MadeContents;
  /** the merged files, for the record of the operation */
  readonly merged: { path: Uint8Array; sha256: Uint8Array }[] = [];

  /** `source` reads the content of all sides: they are points of one store. */
  constructor(source: TreeSource, made: MadeContents) {
    this.#source = source;
    this.#made = made;
  }

  /** Returns `ours` with the merged content; null if the sides are no texts, or changed the same lines. */
  merge(
    path: Uint8Array,
    { base, ours, theirs }: Readonly<Record<"base" | "ours" | "theirs", TreeNode>>,
  ): TreeNode | null {
    const texts = [ours, base, theirs].map((node) => this.#linesOf(node));
    const [a, o, b] = texts;
    if (!a || !o || !b) return null;
    const { conflict: isConflict, result } = mergeDiff3(a, o, b, { excludeFalseConflicts: true });
    if (isConflict) return null;
    const made = this.#made.node(ours, Buffer.from((result as string[]).join("")));
    this.merged.push({ path: Uint8Array.from(path), sha256: made.content });
    return made;
  }

  #linesOf(node: TreeNode): string[] | null {
    if (node.type !== "file" || node.size > MOST_BYTES) return null;
    const bytes = Buffer.concat([...this.#source.content(node)].map((piece) => Uint8Array.from(piece)));
    if (bytes.includes(0)) return null;
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes).split(/(?<=\n)/);
    } catch {
      return null;
    }
  }
}
