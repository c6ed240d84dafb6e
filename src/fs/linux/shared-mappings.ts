import { closeSync, openSync } from "node:fs";
import { constants as system } from "node:os";
import { type Arena, bindNativeLater, lastErrno, newArena } from "../../native.ts";

const ioctl = bindNativeLater("int ioctl(int fd, unsigned long request, uint64_t argument)");
/** Asks for the next matching mapping from an address, a hundred times faster than reading the text: proc_pid_maps(5), Linux 6.11. */
const PROCMAP_QUERY = 0xc0686611;
const SHARED_FILE_OR_NEXT = 0x08 | 0x10 | 0x20;
const WRITABLE = 0x02;
const [QUERY_BYTES, NAME_BYTES] = [104, 4096];
/** Offsets in 64-bit words. */
const AT = { SIZE: 0, FLAGS: 1, ADDRESS: 2, END: 4, INODE: 8, DEVICE: 9, NAME_SIZE: 10, NAME: 11 } as const;
const MAJOR = 0xffffffffn;
/** The name of a ring of asynchronous I/O, by which a program writes without a call that is reported: io_setup(2). */
const RING = "/[aio]";

let kept: { query: Arena; words: BigUint64Array; name: Arena } | undefined;

/** A mapping of a file that a process shares with others. */
export interface SharedMapping {
  /** The low 32 bits of the file's inode number. */
  inode: number;
  /** True for a ring of asynchronous writes, which can go to any file that the process has open. */
  isRing: boolean;
}

/**
 * Calls `given` with each shared mapping of a file, also if it is not writable now: earlier writes through it may be
 * unreported. `path`: the maps file of a process. Returns their number; -1 if the kernel lacks the request.
 */
export function eachSharedMapping(path: string, given: (mapping: SharedMapping) => void): number {
  const maps = openSync(path, "r");
  try {
    for (let address = 0n, count = 0; ; count++) {
      const words = ask(maps, address);
      if (words === null) return isEnd(lastErrno()) ? count : -1;
      const [inode, end] = [Number(words[AT.INODE]! & 0xffffffffn), words[AT.END]!];
      // Rings are on a file system without a device.
      const isRing = (words[AT.DEVICE]! & MAJOR) === 0n && isNamed(maps, address);
      given({ inode, isRing });
      address = end;
    }
  } finally {
    closeSync(maps);
  }
}

/** True if a process has a shared mapping of a file that is writable now, or if the kernel lacks the request. */
export function hasWritableMapping(path: string): boolean {
  const maps = openSync(path, "r");
  try {
    return ask(maps, 0n, { flags: SHARED_FILE_OR_NEXT | WRITABLE }) !== null || !isEnd(lastErrno());
  } finally {
    closeSync(maps);
  }
}

function ask(
  maps: number,
  address: bigint,
  { flags = SHARED_FILE_OR_NEXT, withName = false } = {},
): BigUint64Array | null {
  if (kept === undefined) {
    const query = newArena(QUERY_BYTES);
    const words = new BigUint64Array(query.bytes.buffer, query.bytes.byteOffset, QUERY_BYTES / 8);
    kept = { query, words, name: newArena(NAME_BYTES) };
  }
  const { query, words, name } = kept;
  words.fill(0n);
  words[AT.SIZE] = BigInt(QUERY_BYTES);
  words[AT.FLAGS] = BigInt(flags);
  words[AT.ADDRESS] = address;
  if (withName) [words[AT.NAME_SIZE], words[AT.NAME]] = [BigInt(NAME_BYTES), BigInt(name.address)];
  return ioctl()?.(maps, PROCMAP_QUERY, query.address) === 0 ? words : null;
}

function isNamed(maps: number, address: bigint): boolean {
  if (ask(maps, address, { withName: true }) === null) return false;
  const { bytes } = kept!.name;
  return Buffer.from(bytes.buffer, bytes.byteOffset, RING.length).toString("latin1") === RING;
}

/** No such mapping is left, or the process has ended. */
function isEnd(errno: number): boolean {
  return errno === system.errno.ENOENT || errno === system.errno.ESRCH;
}
