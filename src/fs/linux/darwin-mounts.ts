import { execFileSync } from "node:child_process";
import { isAtOrBelow } from "../safe-path.ts";

/**
 * What macOS says of its volumes: the names of their kinds, which are in no result of Node's, and whose numbers differ from
 * one release to the next. By mount(8); this has never run on macOS.
 */

export interface Volume {
  mountPoint: Buffer;
  /** e.g. `apfs`, `hfs`, `smbfs` */
  type: string;
  /** e.g. `local`, `read-only` */
  options: string[];
}

const LINE = /^.* on (\/.*) \(([^(),]+)((?:, [^()]+)?)\)$/;
const PROGRAM = "/sbin/mount";
const LIMIT_MS = 5000;

/** The lines of mount(8): `/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled)`. Read as latin1. */
export function parseMountLines(text: string): Volume[] {
  return text.split("\n").flatMap((line) => {
    const [, mountPoint, type, options = ""] = LINE.exec(line) ?? [];
    if (mountPoint === undefined || type === undefined) return [];
    return [
      {
        mountPoint: Buffer.from(mountPoint, "latin1"),
        type,
        options: options.split(", ").filter((each) => each !== ""),
      },
    ];
  });
}

/** The volume that a real path lies on, by the names alone; null where none is listed. */
export function volumeOf(path: Uint8Array, volumes: readonly Volume[]): Volume | null {
  let found: Volume | null = null;
  for (const volume of volumes) {
    const isLonger = volume.mountPoint.length >= (found?.mountPoint.length ?? 0);
    if (isLonger && isAtOrBelow(path, volume.mountPoint)) found = volume;
  }
  return found;
}

let known: readonly Volume[] = [];
const devices = new Set<number>();

/**
 * The volumes of this machine; none where they cannot be asked. They are asked again for something on a device that was
 * not met before: it may have been mounted since.
 */
export function knownVolumes(device: number, ask: () => readonly Volume[] = askForVolumes): readonly Volume[] {
  if (!devices.has(device)) known = ask();
  devices.add(device);
  return known;
}

function askForVolumes(): Volume[] {
  try {
    return parseMountLines(
      execFileSync(PROGRAM, { encoding: "latin1", timeout: LIMIT_MS, stdio: ["ignore", "pipe", "ignore"] }),
    );
  } catch {
    return [];
  }
}
