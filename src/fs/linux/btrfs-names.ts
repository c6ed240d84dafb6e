import { throwIfAborted } from "../../errors.ts";
import { type Arena, newArena } from "../../native.ts";
import { callBtrfs } from "./btrfs.ts";
import { DIRECTORY_ITEM, REQUEST, SEARCH } from "./btrfs-abi.ts";

/** Names in a subvolume by its own tree, without a walk through its directories. */

const ROOM = 1024 * 1024;
const FIRST_INODE = 256n;
const HIGHEST = 2n ** 64n - 1n;

/** Position of a search: object (inode), type and offset, in that order. */
interface Key {
  object: bigint;
  type: number;
  offset: bigint;
}

/**
 * Tells whether the subvolume of an open directory has an entry of that name from transaction `since` or later; an
 * older one may count, where something beside it in the tree is not. 0 asks about all of it; null where only an
 * administrator may ask. Takes as long as what was written since is large.
 */
export async function hasNewName(
  fd: number,
  name: Uint8Array,
  { since, signal }: { since: number; signal?: AbortSignal | undefined },
): Promise<boolean | null> {
  const argument = newArena(SEARCH.RESULTS + ROOM);
  const view = new DataView(argument.bytes.buffer, argument.bytes.byteOffset, argument.bytes.length);
  const wanted = Buffer.from(name);
  for (let from: Key | null = { object: FIRST_INODE, type: 0, offset: 0n }; from !== null;) {
    throwIfAborted(signal);
    ask(view, from, since);
    if ((await callBtrfs(fd, REQUEST.TREE_SEARCH_V2, argument)) !== 0) return null;
    const found = read(argument, view, wanted);
    if (found === true) return true;
    from = found === null ? null : after(found);
  }
  return false;
}

function ask(view: DataView, from: Key, since: number): void {
  view.setBigUint64(SEARCH.TREE, 0n, true);
  view.setBigUint64(SEARCH.MIN_OBJECT, from.object, true);
  view.setBigUint64(SEARCH.MAX_OBJECT, HIGHEST, true);
  view.setBigUint64(SEARCH.MIN_OFFSET, from.offset, true);
  view.setBigUint64(SEARCH.MAX_OFFSET, HIGHEST, true);
  view.setBigUint64(SEARCH.MIN_TRANSACTION, BigInt(since), true);
  view.setBigUint64(SEARCH.MAX_TRANSACTION, HIGHEST, true);
  view.setUint32(SEARCH.MIN_TYPE, from.type, true);
  view.setUint32(SEARCH.MAX_TYPE, 255, true);
  view.setUint32(SEARCH.COUNT, 0xffff_ffff, true);
  view.setBigUint64(SEARCH.ROOM, BigInt(ROOM), true);
}

/** True where the name is among the answers; else the key of the last one, null where there was none. */
function read({ bytes }: Arena, view: DataView, wanted: Uint8Array): true | Key | null {
  const count = view.getUint32(SEARCH.COUNT, true);
  let at: number = SEARCH.RESULTS;
  let last: Key | null = null;
  for (let i = 0; i < count; i++) {
    const type = view.getUint32(at + SEARCH.TYPE, true);
    const length = view.getUint32(at + SEARCH.LENGTH, true);
    const item = at + SEARCH.HEADER;
    if (type === DIRECTORY_ITEM.INDEX && view.getUint16(item + DIRECTORY_ITEM.NAME_LENGTH, true) === wanted.length) {
      const name = item + DIRECTORY_ITEM.NAME;
      if (Buffer.compare(bytes.subarray(name, name + wanted.length), wanted) === 0) return true;
    }
    if (i === count - 1) {
      const [object, offset] = [SEARCH.OBJECT, SEARCH.OFFSET].map((part) => view.getBigUint64(at + part, true));
      last = { object: object!, type, offset: offset! };
    }
    at = item + length;
  }
  return last;
}

/** The key right after another; null after the last of all. */
function after({ object, type, offset }: Key): Key | null {
  if (offset < HIGHEST) return { object, type, offset: offset + 1n };
  if (type < 255) return { object, type: type + 1, offset: 0n };
  return object < HIGHEST ? { object: object + 1n, type: 0, offset: 0n } : null;
}
