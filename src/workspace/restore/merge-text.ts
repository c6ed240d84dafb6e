import { mergeDiff3 } from "node-diff3";
import { sha256 } from "../../crypto/hash.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";

/** Merges text files that both sides of a fork changed, line by line. */

/** Larger files are conflicts: nobody writes such texts, and the comparison takes long. */
const MOST_BYTES = 1 << 20;
/** Bytes that a merged text may have. */
export const MOST_MERGED = 2 * MOST_BYTES;

export class TextMerge {
  readonly #source: TreeSource;
  /** by the latin1 SHA-256 of a merged content */
  readonly #made = new Map<string, Uint8Array>();
  /** the merged files, for the record of the operation */
  readonly merged: { path: Uint8Array; sha256: Uint8Array }[] = [];

  /** `source` reads the content of all sides: they are points of one store. */
  constructor(source: TreeSource) {
    this.#source = source;
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
    const bytes = Buffer.from((result as string[]).join(""));
    const content = sha256(bytes);
    this.#made.set(latin1(content), bytes);
    this.merged.push({ path: Uint8Array.from(path), sha256: content });
    return { ...ours, content, size: bytes.length, ...now() };
  }

  /** Returns a state that has the merged contents too. */
  with(source: TreeSource): TreeSource {
    const made = this.#made;
    return {
      ...source,
      list: (directory) => source.list(directory),
      content: (node) => {
        const own = made.get(latin1(node.content ?? new Uint8Array()));
        return own === undefined ? source.content(node) : [own];
      },
    };
  }

  /** True for a content that the store does not have. */
  isMade({ content }: TreeNode): boolean {
    return content !== undefined && this.#made.has(latin1(content));
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

function now(): Pick<TreeNode, "mtimeSec" | "mtimeNs"> {
  const ms = Date.now();
  return { mtimeSec: Math.floor(ms / 1000), mtimeNs: (ms % 1000) * 1_000_000 };
}
