import { CairnError } from "../errors.ts";

/** One slot: state, device, inode (two words), place of the first member's path, stamp; the rest is unused. */
const SLOT = 8;
const S = { STATE: 0, DEVICE: 1, INODE: 2, PATH: 4, STAMP: 5 } as const;
const STATE = { FREE: 0, NAMED: 1, MAKING: 2, READY: 3, FAILED: 4 } as const;
const BLOCK_BITS = 6;
const FEWEST_SLOTS = 2 ** 12;
/** If the number of inodes is known, at most half of the slots are used, and few paths exceed twice this length. */
const PATH_BYTES = 128;
const LEAST_PATH_BYTES = 2 ** 24;
const MOST_PATH_BYTES = 2 ** 30;

/** Memory that the threads of one clone share. The system commits only its used pages. */
export interface SharedLinks {
  slots: SharedArrayBuffer;
  /** word 0: words in use; then paths, each with its length before it */
  paths: SharedArrayBuffer;
}

/**
 * `inodes`: number of inodes in use; 0 if the file system does not report it. Makes less memory if the system refuses;
 * a clone that then runs out of slots is `unsupported`, which needs very many hard links.
 */
export function newSharedLinks(inodes: number): SharedLinks {
  const wanted = inodes > 0 ? Math.min(inodes * 2, 2 ** 24) : 2 ** 22;
  for (let slots = 2 ** Math.ceil(Math.log2(wanted)); slots > FEWEST_SLOTS; slots /= 4) {
    try {
      return linksFor(slots);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }
  return linksFor(FEWEST_SLOTS);
}

function linksFor(slots: number): SharedLinks {
  return {
    slots: new SharedArrayBuffer(slots * SLOT * 4),
    paths: new SharedArrayBuffer(Math.min(MOST_PATH_BYTES, LEAST_PATH_BYTES + slots * PATH_BYTES)),
  };
}

/**
 * Hard-link groups of a tree that several threads clone: the first thread that meets an inode makes the entry, all
 * others link to it. Open addressing; neighbouring inodes get neighbouring slots.
 */
export class CloneLinks {
  readonly #slots: Int32Array;
  readonly #paths: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #mask: number;

  constructor(shared: SharedLinks) {
    this.#slots = new Int32Array(shared.slots);
    this.#paths = new Int32Array(shared.paths);
    this.#bytes = new Uint8Array(shared.paths);
    this.#mask = this.#slots.length / SLOT - 1;
  }

  /** The slot of an inode by its numbers, and by a stamp that tells reused numbers apart. */
  slotOf({ device, low, high, stamp }: { device: number; low: number; high: number; stamp: number }): number {
    const block = Math.imul(
      (low >>> BLOCK_BITS) ^ Math.imul(high, 0x85ebca6b) ^ Math.imul(device, 0xc2b2ae35),
      0x9e3779b1,
    );
    let slot = (((block >>> 8) << BLOCK_BITS) | (low & ((1 << BLOCK_BITS) - 1))) & this.#mask;
    for (let probes = 0; probes <= this.#mask; probes++, slot = (slot + 1) & this.#mask) {
      const at = slot * SLOT;
      if (
        Atomics.load(this.#slots, at) === STATE.FREE &&
        Atomics.compareExchange(this.#slots, at, 0, STATE.NAMED) === 0
      ) {
        this.#slots[at + S.DEVICE] = device;
        this.#slots[at + S.INODE] = low;
        this.#slots[at + S.INODE + 1] = high;
        this.#slots[at + S.STAMP] = stamp;
        Atomics.store(this.#slots, at, STATE.FAILED);
        return slot;
      }
      // Another thread is writing the slot's numbers.
      while (Atomics.load(this.#slots, at) === STATE.NAMED);
      if (
        this.#slots[at + S.INODE] === (low | 0) &&
        this.#slots[at + S.INODE + 1] === (high | 0) &&
        this.#slots[at + S.DEVICE] === (device | 0) &&
        this.#slots[at + S.STAMP] === (stamp | 0)
      )
        return slot;
    }
    throw new CairnError("unsupported", "the folder has more hard-linked files than a clone can follow");
  }

  /**
   * True if the caller must make the entry and report the outcome by `made`; false if it exists: link to `first`. Waits
   * while another thread makes it; `checkStop` may throw meanwhile.
   */
  claim(slot: number, checkStop: () => void): boolean {
    const at = slot * SLOT;
    for (;;) {
      const state = Atomics.load(this.#slots, at);
      if (state === STATE.READY) return false;
      if (
        state === STATE.FAILED &&
        Atomics.compareExchange(this.#slots, at, STATE.FAILED, STATE.MAKING) === STATE.FAILED
      )
        return true;
      checkStop();
      Atomics.wait(this.#slots, at, STATE.MAKING, 20);
    }
  }

  /** Reports the result of a claim: the path of the entry, or null if it could not be made. */
  made(slot: number, path: Uint8Array | null): void {
    const at = slot * SLOT;
    if (path !== null) this.#slots[at + S.PATH] = this.#keep(path);
    Atomics.store(this.#slots, at, path === null ? STATE.FAILED : STATE.READY);
    Atomics.notify(this.#slots, at);
  }

  /** Path of the group's first member. */
  first(slot: number): Uint8Array {
    const word = this.#slots[slot * SLOT + S.PATH]!;
    return this.#bytes.slice(word * 4 + 4, word * 4 + 4 + this.#paths[word]!);
  }

  #keep(path: Uint8Array): number {
    const words = 1 + ((path.length + 3) >> 2);
    const word = 1 + Atomics.add(this.#paths, 0, words);
    if (word + words > this.#paths.length)
      throw new CairnError("unsupported", "the folder has more hard-linked files than a clone can follow");
    this.#paths[word] = path.length;
    this.#bytes.set(path, word * 4 + 4);
    return word;
  }
}

/** A task that every thread of one clone gets. */
export interface CloneTask {
  /** absolute paths of the two folders, raw bytes; the second is empty */
  from: Uint8Array;
  to: Uint8Array;
  /** when the clone was begun (ms since 1970) */
  began: number;
  /** files in more pieces than this are copied */
  extentLimit: number;
  /** see `bitsOfNewFiles` */
  newBits: number;
  /** note the source of each entry */
  origins: boolean;
  pool: SharedArrayBuffer;
  links: SharedLinks;
}
