import { rmSync } from "node:fs";
import path from "node:path";
import { LoopVolume } from "./loop-volume.ts";

/** An absent folder to restore into: on a fresh file system of its own where one can be mounted. */
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

  /** Before each restore. */
  readonly fresh = (): void => {
    if (this.#volume === null) rmSync(this.#plain, { recursive: true, force: true });
    else this.#volume.fresh();
  };

  close(): void {
    this.#volume?.close();
    rmSync(this.#plain, { recursive: true, force: true });
  }
}

/** The arguments of a restore that reads again what the system still holds of it. */
export function memoryProof({ folder }: RestoreTarget): [string, ...string[]] {
  return ["restore", "latest", "--prove-from", "memory", "--to", folder];
}
