import { closeSync, openSync } from "node:fs";
import { constants as system } from "node:os";
import { type Arena, bindNativeLater, lastErrno, newArena } from "../../native.ts";

const ioctl = bindNativeLater("int ioctl(int fd, unsigned long request, uint64_t argument)");
/** Asks for the next mapping of some kind from an address on, which costs a hundredth of the text: proc_pid_maps(5), Linux 6.11. */
const PROCMAP_QUERY = 0xc0686611;
/** Shared mappings of files. They need not be writable now: what was stored is there all the same. */
const SHARED_FILE_OR_NEXT = 0x08 | 0x10 | 0x20;
const [QUERY_BYTES, NAME_BYTES] = [104, 4096];
/** Places of 64 bits. */
const AT = { SIZE: 0, FLAGS: 1, ADDRESS: 2, END: 4, INODE: 8, DEVICE: 9, NAME_SIZE: 10, NAME: 11 } as const;
const MAJOR = 0xffffffffn;
/** Name of the ring by which a program writes with no call that anybody is told of: io_setup(2). */
const RING = "/[aio]";

let kept: { query: Arena; words: BigUint64Array; name: Arena } | undefined;

/** Mapping of a file that a process shares with others. */
export interface SharedMapping {
  /** The low 32 bits of its inode's number. */
  inode: number;
  /** It is the ring of asynchronous writes, which go to any file that the process has open. */
  isRing: boolean;
}

/** Gives each shared mapping of a file of the process whose maps lie at a path: how many; -1: the kernel does not answer in this way. */
export function eachSharedMapping(path: string, given: (mapping: SharedMapping) => void): number {
  const maps = openSync(path, "r");
  try {
    for (let address = 0n, count = 0; ; count++) {
      const words = ask(maps, address, false);
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

function ask(maps: number, address: bigint, withName: boolean): BigUint64Array | null {
  if (kept === undefined) {
    const query = newArena(QUERY_BYTES);
    const words = new BigUint64Array(query.bytes.buffer, query.bytes.byteOffset, QUERY_BYTES / 8);
    kept = { query, words, name: newArena(NAME_BYTES) };
  }
  const { query, words, name } = kept;
  words.fill(0n);
  words[AT.SIZE] = BigInt(QUERY_BYTES);
  words[AT.FLAGS] = BigInt(SHARED_FILE_OR_NEXT);
  words[AT.ADDRESS] = address;
  if (withName) [words[AT.NAME_SIZE], words[AT.NAME]] = [BigInt(NAME_BYTES), BigInt(name.address)];
  return ioctl()?.(maps, PROCMAP_QUERY, query.address) === 0 ? words : null;
}

function isNamed(maps: number, address: bigint): boolean {
  if (ask(maps, address, true) === null) return false;
  const { bytes } = kept!.name;
  return Buffer.from(bytes.buffer, bytes.byteOffset, RING.length).toString("latin1") === RING;
}

/** No such mapping is left, or the process is gone. */
function isEnd(errno: number): boolean {
  return errno === system.errno.ENOENT || errno === system.errno.ESRCH;
}
