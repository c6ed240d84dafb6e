import { hex } from "../../formats/bytes.ts";
import { arenaOver } from "../../native.ts";
import { type FinishedPack, PackWriter } from "../../repository/packs/pack-writer.ts";
import type { OpenStore } from "../databases/point-view.ts";

export interface StoreToFill extends OpenStore {
  /** for unfinished packs */
  readonly workDirectory: string;
}

/** Packs new blobs that neither the store nor this writer has. */
export class PagePacks {
  readonly trees = new Map<string, Uint8Array>();
  readonly #store: StoreToFill;
  readonly #packs: FinishedPack[] = [];
  readonly #writers: Record<"data" | "tree", PackWriter>;
  readonly #added = new Set<string>();

  constructor(store: StoreToFill) {
    this.#store = store;
    const { keys } = store.repository;
    const directory = store.workDirectory;
    const writer = (type: "data" | "tree"): PackWriter =>
      new PackWriter({ type, keys, directory, level: 1, onPack: (pack) => void this.#packs.push(pack) });
    this.#writers = { data: writer("data"), tree: writer("tree") };
  }

  readonly add = async (type: "data" | "tree", id: Uint8Array, bytes: Uint8Array): Promise<void> => {
    if (type === "tree") this.trees.set(hex(id), bytes);
    const key = `${type} ${hex(id)}`;
    if (this.#added.has(key) || this.#store.index.entryOf({ id, type }) >= 0) return;
    this.#added.add(key);
    this.#writers[type].add(id, arenaOver(new Uint8Array(bytes)), 0, bytes.length);
  };

  finish(): FinishedPack[] {
    for (const writer of Object.values(this.#writers)) writer.finish();
    return this.#packs;
  }

  abort(): void {
    for (const writer of Object.values(this.#writers)) writer.abort();
  }
}
