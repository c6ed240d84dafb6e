import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { release } from "node:os";
import path from "node:path";
import { advice, adviceOf, call, type Hint, option, throwIfAborted, toCairnError, word } from "../errors.ts";
import { destroySubvolume, isSubvolume, makeSubvolume } from "../fs/linux/btrfs.ts";
import { temporaryName } from "../fs/durable.ts";
import { PROBE, removeLeftovers } from "../fs/work-directory.ts";
import { filesystemKind, mountOf, readMounts, whyMountsUnknown } from "../fs/linux/mounts.ts";
import { cloneTo } from "../fs/linux/reflink.ts";
import { clearAway } from "../fs/remove-all.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { errnoName, newStatBuffer, openDirectory, putName, sameContentStat, syscalls } from "../fs/linux/syscalls.ts";
import { openRegular, readRegular } from "../fs/regular-file.ts";
import { newArena } from "../native.ts";
import { btrfsHolder } from "./btrfs-holder.ts";
import type { TreeHolder } from "./holder.ts";
import { findJuicefs, JUICEFS_MISSING } from "./juicefs-command.ts";
import { juicefsHolder } from "./juicefs-holder.ts";
import { removeHeldTree } from "./remove-held.ts";

/**
 * Result of a probe: null if the driver works for the folder, else the reason and a hint. `isFull`: the driver may work
 * once there is space.
 */
export type ProbeAnswer = { reason: string; hint?: Hint | undefined; isFull?: true } | null;

export const ENGINES = advice`${call("engine show", "detectEngine", word("path"))} lists the engines that work there`;

const CLONE_BYTES = 64 * 1024;
const EXACT_TIME = { seconds: 1_000_000_001, nanoseconds: 123_456_789, all: 1_000_000_001_123_456_789n };
const JUICEFS_MOUNT = "fuse.juicefs";
/** The probe clones three entries; a slower clone is of no use. */
const PROBE_LIMIT_MS = 20_000;

/** Places that are probed. */
export interface Probe {
  folder: Buffer;
  /** a folder at or above the place of future points */
  place: string;
  signal?: AbortSignal | undefined;
}

/**
 * Tests whether a driver can hold the trees of `folder` in `place`, in a temporary folder that is removed afterwards.
 * Throws only `interrupted` for a folder that exists.
 */
export async function probeHolder(type: TreeHolder["type"], probe: Probe): Promise<ProbeAnswer> {
  const { folder, place } = probe;
  return answered(probe, async () => {
    if (type === "juicefs-clone" && mountOf(folder)?.type !== JUICEFS_MOUNT)
      return { reason: "the folder is not on a mount of JuiceFS" };
    const isSnapshot = type === "btrfs-snapshot" && filesystemKind(folder).name === "btrfs";
    const unknown = isSnapshot ? whyMountsUnknown() : null;
    if (unknown !== null) return unknown;
    const apart = whyApart(type, folder, place);
    if (apart !== null) return pointsApart(apart, place);
    switch (type) {
      case "btrfs-snapshot":
        return probeBtrfs(probe);
      case "reflink-copy":
        return inTemporary(place, probeReflink);
      case "juicefs-clone":
        return probeJuicefs(probe);
    }
  });
}

/**
 * Lists the known facts that the result depends on: the kernel, the mounts of both places, whether the folder is a
 * subvolume, and on JuiceFS the program.
 */
export function factsOfProbe({ folder, place }: Pick<Probe, "folder" | "place">): string[] {
  const mounts = readMounts();
  const of = [mountOf(folder, mounts), mountOf(place, mounts)];
  const program = of[0]?.type === JUICEFS_MOUNT ? findJuicefs() : null;
  return [
    release(),
    ...of.map((mount) => (mount === null ? "" : [mount.type, ...mount.options, mount.fileSystemOptions].join(","))),
    isSubvolume(folder) ? "subvolume" : "",
    program === null ? "" : `${program} ${fs.statSync(program, { throwIfNoEntry: false })?.mtimeMs}`,
  ];
}

/** Turns a failure into a result too, unless the call was aborted. */
async function answered({ signal }: Probe, work: () => Promise<ProbeAnswer>): Promise<ProbeAnswer> {
  throwIfAborted(signal);
  try {
    return await work();
  } catch (error) {
    return answerOf(error);
  }
}

function answerOf(error: unknown): ProbeAnswer {
  const failed = toCairnError(error);
  if (failed.code === "interrupted") throw failed;
  return {
    reason: failed.message,
    hint: adviceOf(failed),
    ...(failed.code === "no_space" ? { isFull: true } : {}),
  };
}

/**
 * Says why `place` cannot hold clones of `folder`; null if it can. A snapshot may be on another mount, a cloned file
 * may not.
 */
function whyApart(type: TreeHolder["type"], folder: Buffer, place: string): string | null {
  const [of, points] = [mountOf(folder), mountOf(place)];
  // Used if there is no list of mounts.
  if (of === null && points === null && fs.statSync(folder).dev !== fs.statSync(place).dev)
    return "another file system";
  if (of?.id === points?.id) return null;
  if (of?.device !== points?.device) return "another file system";
  return type === "btrfs-snapshot" ? null : "another mount of the file system";
}

async function probeBtrfs({ folder, place, signal }: Probe): Promise<ProbeAnswer> {
  if (filesystemKind(folder).name !== "btrfs") return { reason: "the folder is not on btrfs" };
  if (!isSubvolume(folder))
    return {
      reason: "the folder is a plain directory, and btrfs snapshots only subvolumes",
      hint: advice`make the folder a subvolume in place: ${call("init --engine btrfs-snapshot", "openOrInit", word("path"), { engineType: "btrfs-snapshot" })}, or ${call("engine set btrfs-snapshot", "setEngine", "btrfs-snapshot")} if it is a workspace already`,
    };
  return inTemporary(place, async (work) => {
    if (await mayRemoveWhole(work)) return snapshotInto(work, folder, signal);
    // Other users' entries in the folder would stay in a snapshot of it, so the rest is tried with an empty one.
    return whyNotOwn(folder) ?? (await snapshotOfNew(work, signal));
  });
}

/** True if this user may remove a subvolume with any content. */
async function mayRemoveWhole(work: string): Promise<boolean> {
  const tried = path.join(work, "tried");
  await makeSubvolume(Buffer.from(tried));
  const parent = openDirectory(work);
  try {
    await destroySubvolume(parent, path.basename(tried));
    return true;
  } catch {
    await removeHeldTree(tried);
    return false;
  } finally {
    fs.closeSync(parent);
  }
}

function whyNotOwn(folder: Buffer): ProbeAnswer {
  const user = process.geteuid?.();
  if (user === 0 || fs.statSync(folder).uid === user) return null;
  return { reason: "only root and the owner of a subvolume's root directory may snapshot it" };
}

async function snapshotInto(work: string, folder: Buffer, signal: AbortSignal | undefined): Promise<ProbeAnswer> {
  const held = path.join(work, "held");
  try {
    await btrfsHolder().capture(folder, held, { signal });
    return null;
  } catch (error) {
    return answerOf(error);
  } finally {
    await removeHeldTree(held);
  }
}

/**
 * Checks whether a new subvolume in `folder` could be held by snapshots in `place`, by making one in a temporary folder
 * of each. Null if it works. Throws only `interrupted` for folders that exist.
 */
export async function probeNewSubvolume(probe: Probe): Promise<ProbeAnswer> {
  const { folder, place, signal } = probe;
  return answered(probe, async () => {
    if (filesystemKind(folder).name !== "btrfs") return { reason: "the folder is not on btrfs" };
    const unknown = whyMountsUnknown();
    if (unknown !== null) return unknown;
    const apart = whyApart("btrfs-snapshot", folder, place);
    if (apart !== null) return pointsApart(apart, place);
    return inTemporary(place, async (work) => snapshotOfNew(work, signal));
  });
}

async function snapshotOfNew(work: string, signal: AbortSignal | undefined): Promise<ProbeAnswer> {
  const fresh = path.join(work, "fresh");
  try {
    await makeSubvolume(Buffer.from(fresh));
    return await snapshotInto(work, Buffer.from(fresh), signal);
  } finally {
    await removeHeldTree(fresh);
  }
}

function pointsApart(apart: string, place: string): ProbeAnswer {
  return {
    reason: `the points would be on ${apart}, in ${printablePath(place)}`,
    hint: advice`put the control directory on the folder's file system: ${option("controlDirectory")}`,
  };
}

function probeReflink(work: string): ProbeAnswer {
  const sys = syscalls();
  const from = path.join(work, "from");
  const content = randomBytes(CLONE_BYTES);
  fs.writeFileSync(from, content);
  const directory = openDirectory(work);
  const source = openRegular(from);
  let clone = -1;
  try {
    fs.fsyncSync(source);
    const [before, after] = [newStatBuffer(), newStatBuffer()];
    sys.fstat(source, before);
    const names = newArena(8);
    putName(names, 0, Buffer.from("to"));
    clone = cloneTo(sys, source, { directory, names, name: 0 });
    if (clone < 0)
      return {
        reason: `the file system does not clone files: ${errnoName(-clone)}`,
        hint: "use btrfs, or xfs that was made with reflink=1",
      };
    sys.fstat(source, after);
    // Otherwise each file would count as changed while it was cloned.
    if (!sameContentStat(before.words, after.words)) return { reason: "cloning a file changes the file's times" };
    sys.utimens(clone, newArena(1), 0, EXACT_TIME.seconds, EXACT_TIME.nanoseconds);
    const isExact = fs.fstatSync(clone, { bigint: true }).mtimeNs === EXACT_TIME.all;
    const isSame = readRegular(path.join(work, "to")).equals(content);
    return isExact && isSame
      ? null
      : { reason: `a clone does not have ${isSame ? "the time" : "the content"} of its file` };
  } finally {
    for (const fd of [directory, source, clone]) if (fd >= 0) fs.closeSync(fd);
  }
}

async function probeJuicefs({ place, signal }: Probe): Promise<ProbeAnswer> {
  if (findJuicefs() === null) return JUICEFS_MISSING;
  return inTemporary(place, async (work) => {
    const [from, held] = [path.join(work, "from"), path.join(work, "held")];
    fs.mkdirSync(path.join(from, "folder"), { recursive: true });
    fs.writeFileSync(path.join(from, "folder", "file"), randomBytes(CLONE_BYTES));
    fs.symlinkSync("folder/file", path.join(from, "link"));
    try {
      await juicefsHolder({ limitMs: PROBE_LIMIT_MS }).capture(Buffer.from(from), held, { signal });
      const [a, b] = [from, held].map((each) => readRegular(path.join(each, "folder", "file")));
      return a!.equals(b!) ? null : { reason: "a clone that juicefs made has another content than its file" };
    } catch (error) {
      return answerOf(error);
    }
  });
}

/**
 * Removes leftovers of killed probes in a place, and at its mount's root, which a probe uses before the points' folder
 * exists.
 */
function removeOldProbes(place: string): void {
  for (const directory of new Set([place, mountOf(place)?.mountPoint.toString("utf8") ?? place]))
    try {
      removeLeftovers(directory, { ownEndingIn: PROBE });
    } catch {
      // The leftover only takes space.
    }
}

async function inTemporary(
  place: string,
  work: (folder: string) => ProbeAnswer | Promise<ProbeAnswer>,
): Promise<ProbeAnswer> {
  removeOldProbes(place);
  const folder = path.join(place, `${temporaryName()}${PROBE}`);
  fs.mkdirSync(folder, { mode: 0o700 });
  try {
    return await work(folder);
  } finally {
    clearAway(folder);
  }
}
