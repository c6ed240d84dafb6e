import { readFileSync } from "node:fs";
import { filesystemKind } from "./mounts.ts";

/** File systems of Linux that give a new file the mode it is made with, less the umask, whatever they are mounted with. */
const KEEP_MODES: ReadonlySet<string> = new Set(["ext4", "xfs", "btrfs", "tmpfs"]);

/** The umask by a look that does not change it for a moment; all bits where that cannot be. */
export function umaskNow(): number {
  try {
    const line = /^Umask:\s*([0-7]+)$/mu.exec(readFileSync("/proc/self/status", "latin1"));
    return line === null ? 0o777 : Number.parseInt(line[1]!, 8);
  } catch {
    return 0o777;
  }
}

/** The permission bits that a new file below a folder has when it is made with them, where no access list is passed on and nobody changes this process's umask meanwhile. */
export function bitsOfNewFiles(folder: Buffer): number {
  return KEEP_MODES.has(filesystemKind(folder).name) ? 0o777 & ~umaskNow() : 0;
}
