import { append } from "../append.ts";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { type Mount, mountOf, parseMountinfo, readMounts, unescapeOctal } from "./linux/mounts.ts";
import { isAtOrBelow } from "./safe-path.ts";

/**
 * Finds what the system itself holds on to in a folder, beside what processes have open: it would not follow to another
 * folder at the path.
 */

/** Mount points that show the folder (its real path) or something in it under another path, in every namespace that can be asked. */
export function mountedElsewhere(folder: Buffer, mounts: readonly Mount[] = readMounts()): Buffer[] {
  const own = mountOf(folder, mounts);
  if (own === null) return [];
  const below = folder.subarray(own.mountPoint.length === 1 ? 0 : own.mountPoint.length);
  const place = Buffer.concat([own.root.length === 1 ? Buffer.alloc(0) : own.root, below]);
  const showing = (all: readonly Mount[]): Buffer[] =>
    all.flatMap(({ device, root, mountPoint }) =>
      device === own.device && isAtOrBelow(root, place) ? [mountPoint] : [],
    );
  const found = showing(mounts);
  for (const pid of onePerNamespace()) append(found, showing(parseMountinfo(textOf(`/proc/${pid}/mountinfo`))));
  return found;
}

/** A process of each other mount namespace. */
function onePerNamespace(): string[] {
  const byNamespace = new Map<string, string>();
  for (const pid of readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name))) {
    try {
      byNamespace.set(readlinkSync(`/proc/${pid}/ns/mnt`), pid);
    } catch {
      // Another user's, or gone.
    }
  }
  byNamespace.delete(readlinkSync("/proc/self/ns/mnt"));
  return [...byNamespace.values()];
}

/** Sockets in the folder that a program of this network namespace has bound, by the path that it named. */
export function boundSockets(folder: Buffer): Buffer[] {
  const lines = textOf("/proc/net/unix").split("\n").slice(1);
  const paths = lines.flatMap((line) => /^(?:\S+\s+){7}(\/.*)$/.exec(line)?.[1] ?? []);
  return inFolder(
    paths.map((path) => Buffer.from(path, "latin1")),
    folder,
  );
}

/** Files in the folder that the system swaps to. */
export function swapFiles(folder: Buffer): Buffer[] {
  const lines = textOf("/proc/swaps").split("\n").slice(1);
  return inFolder(
    lines.map((line) => unescapeOctal(line.split(/\s/)[0] ?? "")),
    folder,
  );
}

function inFolder(paths: readonly Buffer[], folder: Buffer): Buffer[] {
  return paths.filter((path) => path.length > folder.length && isAtOrBelow(path, folder));
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch {
    return "";
  }
}
