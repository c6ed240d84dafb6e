import { rmSync } from "node:fs";
import path from "node:path";
import { LoopVolume } from "./loop-volume.ts";

/** A missing folder to restore into, on a fresh file system if one can be mounted. */
export class RestoreTarget {
  readonly folder: string;
  readonly notes: readonly string[];
  readonly #volume: LoopVolume | null;
  readonly #plain: string;

  constructor(scratch: string) {
    this.#plain = path.join(scratch, "restored");
    this.#volume = process.getuid?.() === 0 ? new LoopVolume(path.join(scratch, "volume")) : null;
    this.folder = path.join(this.#volume?.mountPoint ?? this.#plain, "out");
    this.notes =
      this.#volume === null ? ["not root: on the scratch folder's own file system instead of a fresh one"] : [];
  }

  /** Called before each restore. */
  readonly fresh = (): void => {
    if (this.#volume === null) rmSync(this.#plain, { recursive: true, force: true });
    else this.#volume.fresh();
  };

  close(): void {
    this.#volume?.close();
    rmSync(this.#plain, { recursive: true, force: true });
  }
}

/** Returns the arguments of a restore whose proof reads the files from the page cache. */
export function memoryProof({ folder }: RestoreTarget): [string, ...string[]] {
  return ["restore", "latest", "--prove", "memory", "--to", folder];
}
