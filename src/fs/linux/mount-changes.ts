import { closeSync, openSync } from "node:fs";
import type { bindNative, newArena } from "../../native.ts";

const [POLLERR, POLLPRI] = [8, 2];

/** Detects mounts and unmounts: proc(5), poll on mountinfo. The caller gives the functions of native.ts. */
export class MountTable {
  readonly #fd = openSync("/proc/self/mountinfo", "r");
  readonly #asked: ReturnType<typeof newArena>;
  readonly #poll: ReturnType<typeof bindNative>;

  constructor(native: { bindNative: typeof bindNative; newArena: typeof newArena }) {
    this.#asked = native.newArena(8);
    this.#poll = native.bindNative("int poll(uint64_t fds, unsigned long count, int timeout)");
  }

  /** True if the mount table has changed since the last call, or may have. */
  hasChanged(): boolean {
    const words = new Int32Array(this.#asked.bytes.buffer, this.#asked.bytes.byteOffset, 2);
    words.set([this.#fd, POLLPRI]);
    if (this.#poll?.(this.#asked.address, 1, 0) === 0) return false;
    return words[1]! >>> 16 === 0 || ((words[1]! >>> 16) & (POLLERR | POLLPRI)) !== 0;
  }

  close(): void {
    closeSync(this.#fd);
  }
}
