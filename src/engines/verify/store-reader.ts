import fs from "node:fs";
import type { MasterKeys } from "../../crypto/seal.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { decodeTree, type TreeNode } from "../../formats/tree.ts";
import { objectIdOf } from "../../ids.ts";
import { type BlobIndex, DATA_BLOB, TREE_BLOB } from "../../repository/blob-index.ts";
import { BlobReader } from "../../repository/blob-reader.ts";
import { packPath } from "./verify-task.ts";

/**
 * Reads single blobs by id on this thread. Whatever keeps one from being read is thrown as `damaged`. Seals are
 * checked; ids are where it is said, as the threads may prove the same blobs at the same places.
 */
export class StoreReader {
  readonly index: BlobIndex;
  readonly #reader: BlobReader;
  readonly #isComparedLater: boolean;

  constructor(keys: MasterKeys, index: BlobIndex, packs: string, { verify = false } = {}) {
    this.index = index;
    this.#isComparedLater = !verify;
    this.#reader = new BlobReader({ keys, openPack: (id) => fs.openSync(packPath(packs, id), "r") });
  }

  tree(id: Uint8Array): TreeNode[] {
    return decodeTree(this.#read(id, this.index.lookup(id, 0, TREE_BLOB)));
  }

  /** The bytes of the blob with this entry number, a fresh copy. */
  bytesAt(entry: number): Uint8Array {
    return this.#read(this.index.idOf(entry), entry);
  }

  /** Nodes of the tree with this entry number. */
  treeAt(entry: number): TreeNode[] {
    return decodeTree(this.bytesAt(entry));
  }

  data(id: Uint8Array): Uint8Array {
    return this.#read(id, this.index.lookup(id, 0, DATA_BLOB));
  }

  #read(id: Uint8Array, entry: number): Uint8Array {
    if (entry < 0) throw new CairnError("damaged", `the index does not know blob ${objectIdOf(id).slice(0, 12)}`);
    try {
      return this.#reader.read({ ...this.index.place(entry), id, isComparedLater: this.#isComparedLater });
    } catch (error) {
      const known = toCairnError(error);
      if (known.code === "damaged") throw known;
      const pack = objectIdOf(this.index.place(entry).pack).slice(0, 12);
      throw new CairnError(
        "damaged",
        known.code === "not_found"
          ? `its pack ${pack} is missing`
          : `its pack ${pack} cannot be read: ${known.message}`,
      );
    }
  }

  close(): void {
    this.#reader.close();
  }
}
