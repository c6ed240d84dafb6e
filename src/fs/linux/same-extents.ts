import { ioctl } from "./reflink.ts";
import { type Arena, newArena } from "../../native.ts";

/** Detects that two files share their content, without reading it. */

const FS_IOC_FIEMAP = 0xc020660b;
const FLAG_SYNC = 1;
/** Offsets in the request, and in each extent of the answer. */
const ASKED = { START: 0, LENGTH: 8, FLAGS: 16, MAPPED: 20, ROOM: 24, EXTENTS: 32 } as const;
const EXTENT = { LOGICAL: 0, PHYSICAL: 8, LENGTH: 16, FLAGS: 40, SIZE: 56 } as const;
const LAST = 0x1;
const UNWRITTEN = 0x800;
/** Flags of an extent whose place on the disk identifies its content: last, unwritten, merged, shared. */
const PLAIN = LAST | UNWRITTEN | 0x1000 | 0x2000;
const ROOM = 256;

/** A piece of a file that is contiguous on the disk. */
interface Run {
  logical: bigint;
  physical: bigint;
  length: bigint;
  isUnwritten: boolean;
}

/**
 * True if two open files of one file system and equal size surely have the same content: after a write-out all extents
 * are at the same places on the disk. False if they differ, or if the file system does not report extents.
 */
export function haveSameExtents(a: number, b: number): boolean {
  const one = runsOf(a);
  const other = runsOf(b);
  for (;;) {
    const [x, y] = [one.next(), other.next()];
    if (x.value === null || y.value === null) return false;
    if (x.done === true || y.done === true) return x.done === y.done;
    const [p, q] = [x.value, y.value];
    const isSame = p.logical === q.logical && p.physical === q.physical && p.length === q.length;
    if (!isSame || p.isUnwritten !== q.isUnwritten) return false;
  }
}

/**
 * Yields the longest contiguous runs, however the file system divides them. Yields null and ends if an extent's place
 * does not identify its content.
 */
function* runsOf(fd: number): Generator<Run | null, void> {
  const argument = newArena(ASKED.EXTENTS + ROOM * EXTENT.SIZE);
  let run: Run | null = null;
  for (let start = 0n; ;) {
    const count = ask(fd, argument, start);
    if (count < 0) return yield null;
    const view = viewOf(argument);
    let isLast = count === 0;
    for (let i = 0; i < count; i++) {
      const at = ASKED.EXTENTS + i * EXTENT.SIZE;
      const flags = view.getUint32(at + EXTENT.FLAGS, true);
      if ((flags & ~PLAIN) !== 0) return yield null;
      const next: Run = {
        logical: view.getBigUint64(at + EXTENT.LOGICAL, true),
        physical: view.getBigUint64(at + EXTENT.PHYSICAL, true),
        length: view.getBigUint64(at + EXTENT.LENGTH, true),
        isUnwritten: (flags & UNWRITTEN) !== 0,
      };
      if (run !== null && goesOn(run, next)) run.length += next.length;
      else {
        if (run !== null) yield run;
        run = next;
      }
      start = next.logical + next.length;
      isLast = (flags & LAST) !== 0;
    }
    if (!isLast) continue;
    if (run !== null) yield run;
    return;
  }
}

function goesOn(run: Run, next: Run): boolean {
  return (
    run.logical + run.length === next.logical &&
    run.physical + run.length === next.physical &&
    run.isUnwritten === next.isUnwritten
  );
}

/** Returns the number of extents in the answer, or minus errno. */
function ask(fd: number, argument: Arena, start: bigint): number {
  argument.bytes.fill(0, 0, ASKED.EXTENTS);
  const view = viewOf(argument);
  view.setBigUint64(ASKED.START, start, true);
  view.setBigUint64(ASKED.LENGTH, 2n ** 63n - 1n - start, true);
  view.setUint32(ASKED.FLAGS, FLAG_SYNC, true);
  view.setUint32(ASKED.ROOM, ROOM, true);
  const result = ioctl(fd, FS_IOC_FIEMAP, argument.address);
  return result < 0 ? result : view.getUint32(ASKED.MAPPED, true);
}

function viewOf({ bytes }: Arena): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
