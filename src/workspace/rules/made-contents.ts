import { sha256 } from "../../crypto/hash.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";

/** Contents that a rule made, such as merged texts and lines of reflogs: no point has them. */
export class MadeContents {
  /** by the latin1 SHA-256 */
  readonly #made = new Map<string, Uint8Array>();

  /** Returns `like` with a new content and the present time. */
  node(like: TreeNode, bytes: Uint8Array): TreeNode & { content: Uint8Array } {
    const content = sha256(bytes);
    this.#made.set(latin1(content), bytes);
    const ms = Date.now();
    const mtime = { mtimeSec: Math.floor(ms / 1000), mtimeNs: (ms % 1000) * 1_000_000 };
    return { ...like, content, size: bytes.length, ...mtime };
  }

  /** Returns a state that has these contents too. */
  with(source: TreeSource): TreeSource {
    const made = this.#made;
    if (made.size === 0) return source;
    return {
      ...source,
      list: (directory) => source.list(directory),
      content: (node) => {
        const own = made.get(latin1(node.content ?? new Uint8Array()));
        return own === undefined ? source.content(node) : [own];
      },
    };
  }

  has({ content }: TreeNode): boolean {
    return content !== undefined && this.#made.has(latin1(content));
  }
}
