import { TreeCursor } from "./tree-cursor.ts";
import { decodeTree } from "./tree.ts";

/** Ids back to back, in reused memory. */
class IdList {
  #bytes = new Uint8Array(32 * 64);
  #length = 0;

  clear(): void {
    this.#length = 0;
  }

  add(ids: Uint8Array, count: number): void {
    const end = this.#length + count * 32;
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    for (let from = 0, to = this.#length; to < end; from++, to++) this.#bytes[to] = ids[from]!;
    this.#length = end;
  }

  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** Reads the ids that trees refer to, without an object for each entry. Reusable for other trees. */
export class TreeReferences {
  /** Ids of the last tree's subtrees, 32 bytes each, in the tree's order; valid until the next `read`. */
  subtrees: Uint8Array = new Uint8Array(0);
  /** Ids of the last tree's data blobs, in the same form. */
  blobs: Uint8Array = new Uint8Array(0);
  readonly #cursor = new TreeCursor();
  readonly #subtrees = new IdList();
  readonly #blobs = new IdList();

  /** Reads a tree's plaintext. Throws `damaged` as `decodeTree` does. */
  read(tree: Uint8Array): void {
    if (!this.#readUsual(tree)) this.#readAny(tree);
    this.subtrees = this.#subtrees.view();
    this.blobs = this.#blobs.view();
  }

  #readUsual(tree: Uint8Array): boolean {
    const cursor = this.#cursor;
    this.#clear();
    cursor.open(tree);
    while (cursor.next()) (cursor.type === "dir" ? this.#subtrees : this.#blobs).add(cursor.ids, cursor.idCount);
    return cursor.usual;
  }

  #readAny(tree: Uint8Array): void {
    this.#clear();
    for (const { subtree, content } of decodeTree(tree)) {
      if (subtree !== undefined) this.#subtrees.add(subtree, 1);
      if (content !== undefined) this.#blobs.add(content, content.length / 32);
    }
  }

  #clear(): void {
    this.#subtrees.clear();
    this.#blobs.clear();
  }
}
