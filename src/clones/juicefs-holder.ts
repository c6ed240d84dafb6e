import fs from "node:fs";
import { setTimeout } from "node:timers/promises";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { flushFileSystem } from "../fs/linux/flush.ts";
import { isAtOrBelow, printablePath, quotedPath } from "../fs/paths/safe-path.ts";
import { warmThreads } from "../threads/threads.ts";
import { CLONE } from "./clone-work.ts";
import { compareTrees, type TreeComparison } from "./compare-trees.ts";
import { flushOpenFiles } from "./flush-open-files.ts";
import type { Captured, HolderCall, TreeHolder } from "./holder.ts";
import { findJuicefs, JUICEFS_MISSING, runJuicefsClone } from "./juicefs-command.ts";
import { DIRECTORY, openBelow } from "../fs/linux/open-below.ts";
import {
  newStatBuffer,
  openDirectory,
  putName,
  signedWide,
  STAT,
  syscallError,
  syscalls,
} from "../fs/linux/syscalls.ts";
import { newArena } from "../native.ts";
import { removeTree } from "./remove-held.ts";

export interface JuicefsOptions {
  /** absolute path of the program; default: the one on the search path */
  program?: string;
  /** how long one clone may take, in milliseconds */
  limitMs?: number;
}

/** A folder that changes during each attempt is not tried again; the differences are reported. */
const ATTEMPTS = 2;
/** Separates two attempts, so that a change before the first cannot explain a difference in the second. */
const PAUSE_MS = 150;

/**
 * Holds trees that JuiceFS clones within one mount: metadata is copied, content is shared. Facts of it:
 * - Each file is of one moment, the tree is not: it is compared with the folder and cloned once more if something
 * changed; entries that still differ count as torn.
 * - The names of a hard-linked file come out as separate files and are linked again; files known to be open are synced
 * before.
 * - Permissions of the held tree do not prevent writing; only its place keeps people away. A trash keeps the space of
 * removed trees.
 */
export function juicefsHolder(options: JuicefsOptions = {}): TreeHolder {
  const clone = async (from: Uint8Array, to: Uint8Array, call: HolderCall): Promise<Captured> => {
    throwIfAborted(call.signal);
    checkPlaces(from, to);
    try {
      return await cloneAndCheck(from, to, { ...call, ...options });
    } catch (error) {
      const failure = toCairnError(error, "cloning the folder");
      await removeTree(to).catch(() => undefined);
      throw failure;
    }
  };
  return {
    type: "juicefs-clone",
    atomic: false,
    prepare: () => warmThreads(CLONE),
    capture: async (root, place, call) => clone(root, Buffer.from(place), call),
    materialise: async (place, target, call) => clone(Buffer.from(place), target, call),
    remove: async (place) => removeTree(Buffer.from(place)),
  };
}

function checkPlaces(from: Uint8Array, to: Uint8Array): void {
  if (isAtOrBelow(to, from))
    throw new CairnError("refused", `the clone ${printablePath(to)} would lie inside the folder to clone`);
  if (fs.lstatSync(Buffer.from(to), { throwIfNoEntry: false }) !== undefined)
    throw new CairnError("already_exists", `cannot clone to ${printablePath(to)}: the path exists already`);
  if (fs.lstatSync(Buffer.from(from), { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new CairnError("not_found", `${printablePath(from)} is not a folder`);
}

async function cloneAndCheck(from: Uint8Array, to: Uint8Array, call: HolderCall & JuicefsOptions): Promise<Captured> {
  const program = call.program ?? findJuicefs();
  if (program === null) throw new CairnError("unsupported", JUICEFS_MISSING.reason, { hint: JUICEFS_MISSING.hint });
  await flushFileSystem(Buffer.from(from));
  await flushOpenFiles(from);
  let compared: TreeComparison;
  for (let attempt = 1; ; attempt++) {
    const since = Date.now();
    await runJuicefsClone(from, to, { program, limitMs: call.limitMs, signal: call.signal });
    failpoint("juicefs.cloned");
    compared = await compareTrees(from, to, { since, signal: call.signal, onProgress: call.onProgress });
    const differs = compared.unlike !== null || compared.changed.length > 0;
    if (!differs || attempt === ATTEMPTS) break;
    await removeTree(to);
    failpoint("juicefs.again");
    await setTimeout(PAUSE_MS, undefined, call.signal === undefined ? {} : { signal: call.signal });
  }
  requireWhole(compared);
  relink(to, compared.split);
  failpoint("juicefs.linked");
  await flushFileSystem(Buffer.from(to));
  return { degraded: [], apart: compared.apart, torn: withTheirGroups(compared) };
}

function requireWhole({ unlike, newest }: TreeComparison): void {
  if (unlike !== null)
    throw new CairnError(
      "unsupported",
      `the clone differs from the folder: ${printablePath(unlike.path) || "."} ${unlike.what}`,
    );
  // A clone has the times of its source. With a time in the future no later change would show.
  if (newest > Date.now())
    throw new CairnError("unsupported", "an entry of the folder has a change time (ctime) in the future", {
      hint: "set the clock of the other hosts that write there: one of them is ahead",
    });
}

/** Adds the other names of changed hard-linked files: the name that is kept may be older than the others. */
function withTheirGroups({ changed, split }: TreeComparison): Uint8Array[] {
  const torn = new Map(changed.map((path) => [Buffer.from(path).toString("latin1"), path]));
  for (const group of split) {
    const keys = group.map((path) => Buffer.from(path).toString("latin1"));
    if (keys.some((key) => torn.has(key))) keys.forEach((key, at) => torn.set(key, group[at]!));
  }
  return [...torn.values()];
}

/**
 * Links the names of each group to its first name again, in a tree that no other process uses; keeps the times of
 * directories. Throws `permission` if a directory cannot be written to.
 */
function relink(tree: Uint8Array, groups: readonly (readonly Uint8Array[])[]): void {
  if (groups.length === 0) return;
  const sys = syscalls();
  const root = openDirectory(Buffer.from(tree));
  const [path, from, to, noName] = [newArena(8192), newArena(512), newArena(512), newArena(1)];
  const stat = newStatBuffer();
  const parentOf = (entry: Uint8Array): { fd: number; name: Uint8Array } => {
    const slash = entry.lastIndexOf(0x2f);
    const fd = openBelow(sys, root, entry.subarray(0, Math.max(slash, 0)), DIRECTORY, path);
    if (fd < 0) throw syscallError(fd, `cannot open the directory of ${quotedPath(entry)}`);
    return { fd, name: entry.subarray(slash + 1) };
  };
  const link = (first: { fd: number; name: Uint8Array }, entry: Uint8Array): void => {
    const own = parentOf(entry);
    try {
      putName(to, 0, own.name);
      putName(from, 0, first.name);
      const { words } = stat;
      for (const result of [
        sys.fstat(own.fd, stat),
        sys.unlink(own.fd, to, 0, false),
        sys.link(first.fd, from, 0, own.fd, to, 0),
        sys.utimens(own.fd, noName, 0, signedWide(words, STAT.MTIME), words[STAT.MTIME_NS]!),
      ])
        if (result < 0) throw syscallError(result, `cannot link ${quotedPath(entry)} again`);
    } finally {
      sys.close(own.fd);
    }
  };
  try {
    for (const [name, ...others] of groups) {
      const first = parentOf(name!);
      try {
        for (const entry of others) link(first, entry);
      } finally {
        sys.close(first.fd);
      }
    }
  } finally {
    fs.closeSync(root);
  }
}
