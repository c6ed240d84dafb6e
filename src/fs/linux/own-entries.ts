import { append } from "../../append.ts";
import fs from "node:fs";
import { isMountPoint, mountOf } from "./mounts.ts";

const LOST_AND_FOUND = "lost+found";
/** Names that JuiceFS's mounts show of themselves, by either of the names that it can be told to use. */
const OF_JUICEFS = [".accesslog", ".config", ".stats", ".trash"].flatMap((name) => [name, `.jfs${name}`]);
/** Inodes that JuiceFS gives to nothing that somebody made begin here; a folder of it that is mounted may have such names. */
const FIRST_OF_JUICEFS = 0x7fff_ffff_0000_0000n;

/**
 * Lists names that a file system has put into its own root, if `folder` is that, and that nobody saves, restores or
 * removes. `folder`: raw bytes of a real path.
 */
export function ownEntries(folder: Buffer): string[] {
  const lost = look(folder, LOST_AND_FOUND);
  const found: string[] = [];
  if (lost?.isDirectory() === true && lost.uid === 0n && (lost.mode & 0o777n) === 0o700n) found.push(LOST_AND_FOUND);
  const inner = OF_JUICEFS.filter((name) => (look(folder, name)?.ino ?? 0n) >= FIRST_OF_JUICEFS);
  if (inner.length > 0 && mountOf(folder)?.type === "fuse.juicefs") append(found, inner);
  return found.length > 0 && isMountPoint(folder) ? found : [];
}

function look(folder: Buffer, name: string): fs.BigIntStats | undefined {
  return fs.lstatSync(Buffer.concat([folder, Buffer.from(`/${name}`)]), { throwIfNoEntry: false, bigint: true });
}
