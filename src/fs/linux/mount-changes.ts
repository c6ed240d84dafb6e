import { closeSync, openSync } from "node:fs";
import { bindNativeLater, newArena } from "../../native.ts";
import { AT_FDCWD } from "./syscall-abi.ts";

const [POLLERR, POLLPRI] = [8, 2];
const poll = bindNativeLater("int poll(uint64_t fds, unsigned long count, int timeout)");

/** Tells when something was mounted or unmounted: proc(5), poll on mountinfo. */
export class MountTable {
  readonly #fd = openSync("/proc/self/mountinfo", "r");
  readonly #asked = newArena(8);

  /** Since it was asked last, or may have been. */
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

/** Number of the mount at a path, as latin1, which no other mount ever has: statx(2), Linux 6.8. Null where that is not told. */
export function uniqueMountId(path: string): bigint | null {
  const name = newArena(path.length + 1);
  name.bytes.set(Buffer.from(path, "latin1"));
  const facts = newArena(BYTES);
  if (statx()?.(AT_FDCWD, name.address, NO_FOLLOW, UNIQUE_ID, facts.address) !== 0) return null;
  const view = new DataView(facts.bytes.buffer, facts.bytes.byteOffset);
  const isTold = (new Uint32Array(facts.bytes.buffer, facts.bytes.byteOffset + MASK_AT, 1)[0]! & UNIQUE_ID) !== 0;
  return isTold ? view.getBigUint64(ID_AT, true) : null;
}
