import { closeSync, openSync } from "node:fs";
import { bindNativeLater, newArena } from "../../native.ts";
import { AT_FDCWD } from "./syscall-abi.ts";

const [POLLERR, POLLPRI] = [8, 2];
const poll = bindNativeLater("int poll(uint64_t fds, unsigned long count, int timeout)");

/** Detects mounts and unmounts: proc(5), poll on mountinfo. */
export class MountTable {
  readonly #fd = openSync("/proc/self/mountinfo", "r");
  readonly #asked = newArena(8);

  /** True if the mount table has changed since the last call, or may have. */
  hasChanged(): boolean {
    const words = new Int32Array(this.#asked.bytes.buffer, this.#asked.bytes.byteOffset, 2);
    words.set([this.#fd, POLLPRI]);
    if (poll()?.(this.#asked.address, 1, 0) === 0) return false;
    return words[1]! >>> 16 === 0 || ((words[1]! >>> 16) & (POLLERR | POLLPRI)) !== 0;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

const NO_FOLLOW = 0x100;
const UNIQUE_ID = 0x4000;
const [MASK_AT, ID_AT, BYTES] = [0, 144, 256];
const statx = bindNativeLater("int statx(int fd, uint64_t path, int flags, unsigned int mask, uint64_t facts)");

/** A mount number that the kernel never reuses, for the mount at a path (latin1): statx(2), Linux 6.8. Null on older kernels. */
export function uniqueMountId(path: string): bigint | null {
  const name = newArena(path.length + 1);
  name.bytes.set(Buffer.from(path, "latin1"));
  const facts = newArena(BYTES);
  if (statx()?.(AT_FDCWD, name.address, NO_FOLLOW, UNIQUE_ID, facts.address) !== 0) return null;
  const view = new DataView(facts.bytes.buffer, facts.bytes.byteOffset);
  const isTold = (new Uint32Array(facts.bytes.buffer, facts.bytes.byteOffset + MASK_AT, 1)[0]! & UNIQUE_ID) !== 0;
  return isTold ? view.getBigUint64(ID_AT, true) : null;
}
