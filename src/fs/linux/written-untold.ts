import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { INITIAL_PID_NAMESPACE, isDenied, isKernelThread, processNumbers, readMaps } from "./holders.ts";
import { eachSharedMapping } from "./shared-mappings.ts";

/**
 * Inodes of files that somebody may write to without the kernel telling it, by the low 32 bits of their numbers: what processes have
 * mapped together, what those have open who write by libaio, and the images of loop devices. Null where that cannot be said of all.
 */
export function writtenUntold(): number[] | null {
  const inodes = new Set<number>();
  // Processes outside of a container write to its files too.
  if (readlinkSync("/proc/self/ns/pid") !== INITIAL_PID_NAMESPACE) return null;
  for (const pid of processNumbers()) {
    try {
      const maps = mapsOf(pid);
      if (maps !== null && !addMapped(pid, maps, inodes)) return null;
    } catch (error) {
      // The first process of a machine may be kept from everybody; it is no user's.
      if (isDenied(error) && pid !== 1) return null;
    }
  }
  return addLoopImages(inodes) ? [...inodes] : null;
}

/** Null for the kernel's own threads. The first thread of a process may have ended, which shows no maps any more. */
function mapsOf(pid: number): string | null {
  if (!isKernelThread(pid)) return `/proc/${pid}/maps`;
  if (statSync(`/proc/${pid}/task`).nlink <= NO_OTHER_THREAD) return null;
  const other = readdirSync(`/proc/${pid}/task`).find((task) => task !== String(pid));
  return other === undefined ? null : `/proc/${pid}/task/${other}/maps`;
}

/** Links of the folder of a process's threads when it has one. */
const NO_OTHER_THREAD = 3;

/** False where not all mappings of the process could be read. */
function addMapped(pid: number, maps: string, inodes: Set<number>): boolean {
  let hasRing = false;
  const count = eachSharedMapping(maps, ({ inode, isRing }) => {
    inodes.add(inode);
    hasRing ||= isRing;
  });
  if (count < 0) {
    const { text, whole } = readMaps(maps);
    if (!whole) return false;
    for (const [, inode, name] of text.matchAll(/^\S+ ...s \S+ \S+ (\d+)\s+(\/.*)/gm)) {
      inodes.add(Number(BigInt(inode!) & 0xffffffffn));
      hasRing ||= name!.startsWith("/[aio]");
    }
  }
  if (hasRing)
    for (const descriptor of readdirSync(`/proc/${pid}/fd`)) addFile(`/proc/${pid}/fd/${descriptor}`, inodes);
  return true;
}

function addFile(path: string | Buffer, inodes: Set<number>): void {
  const facts = statSync(path, { bigint: true, throwIfNoEntry: false });
  if (facts?.isFile() === true) inodes.add(Number(facts.ino & 0xffffffffn));
}

/** False where it is not told what lies behind one. */
function addLoopImages(inodes: Set<number>): boolean {
  try {
    for (const device of readdirSync("/sys/block")) {
      if (!device.startsWith("loop")) continue;
      const image = backingFile(device);
      if (image !== null) addFile(image, inodes);
    }
    return true;
  } catch {
    return false;
  }
}

/** Null for a device with nothing behind it. */
function backingFile(device: string): Buffer | null {
  try {
    // Its last byte ends the line.
    return readFileSync(`/sys/block/${device}/loop/backing_file`).subarray(0, -1);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT" || (error as NodeJS.ErrnoException).code === "ENXIO")
      return null;
    throw error;
  }
}
