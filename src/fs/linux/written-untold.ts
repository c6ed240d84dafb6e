import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { INITIAL_PID_NAMESPACE, isDenied, isKernelThread, processNumbers, readMaps } from "./holders.ts";
import { eachSharedMapping } from "./shared-mappings.ts";

/**
 * Inodes of files that processes may write to without a report by the kernel (low 32 bits of each number): files with
 * shared mappings, files open in processes that use libaio, and images of loop devices. Null if some cannot be found.
 */
export function writtenUntold(): number[] | null {
  const inodes = new Set<number>();
  // Processes outside a container write to its files too.
  if (readlinkSync("/proc/self/ns/pid") !== INITIAL_PID_NAMESPACE) return null;
  for (const pid of processNumbers()) {
    try {
      const maps = mapsOf(pid);
      if (maps !== null && !addMapped(pid, maps, inodes)) return null;
    } catch (error) {
      // Process 1 may be hidden from other users; it belongs to no user.
      if (isDenied(error) && pid !== 1) return null;
    }
  }
  return addLoopImages(inodes) ? [...inodes] : null;
}

/** Null for threads of the kernel. If the first thread of a process has ended, its maps are empty, so another thread's are read. */
function mapsOf(pid: number): string | null {
  if (!isKernelThread(pid)) return `/proc/${pid}/maps`;
  if (statSync(`/proc/${pid}/task`).nlink <= NO_OTHER_THREAD) return null;
  const other = readdirSync(`/proc/${pid}/task`).find((task) => task !== String(pid));
  return other === undefined ? null : `/proc/${pid}/task/${other}/maps`;
}

/** Link count of a process's `task` folder if the process has one thread. */
const NO_OTHER_THREAD = 3;

/** False if some mappings of the process could not be read. */
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

/** False if the image of a loop device cannot be read. */
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

/** Null for a device without an image. */
function backingFile(device: string): Buffer | null {
  try {
    // The last byte is a newline.
    return readFileSync(`/sys/block/${device}/loop/backing_file`).subarray(0, -1);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT" || (error as NodeJS.ErrnoException).code === "ENXIO")
      return null;
    throw error;
  }
}
