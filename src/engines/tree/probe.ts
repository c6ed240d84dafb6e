import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { toCairnError } from "../../errors.ts";
import { isSubvolume } from "../../fs/btrfs.ts";
import { temporaryName } from "../../fs/durable.ts";
import { filesystemKind, type Mount, mountOf } from "../../fs/mounts.ts";
import { cloneAnswer, cloneFile } from "../../fs/reflink.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { syscalls } from "../../fs/syscalls.ts";
import { btrfsHolder } from "./btrfs-holder.ts";
import type { TreeHolder } from "./holder.ts";
import { removeHeldTree } from "./remove-held.ts";

/** What a probe found: null when the holder works for the folder, else why not and what would help. */
export type ProbeAnswer = { reason: string; hint?: string } | null;

const CLONE_BYTES = 64 * 1024;

/**
 * Whether a holder can hold the trees of `folder` in `place`, a folder on the way to where points will be: by doing it
 * there, in a temporary folder that is gone afterwards. Never throws for a folder that exists.
 */
export async function probeHolder(type: TreeHolder["type"], folder: Buffer, place: string): Promise<ProbeAnswer> {
  try {
    const apart = whyApart(type, mountOf(folder), mountOf(place));
    if (apart !== null)
      return {
        reason: `the points lie on ${apart}, in ${printablePath(place)}`,
        hint: "let the control directory be on the folder's file system: --control-dir",
      };
    switch (type) {
      case "btrfs-snapshot":
        return await probeBtrfs(folder, place);
      case "reflink-copy":
        return await inTemporary(place, probeReflink);
      case "juicefs-clone":
        return probeJuicefs(folder);
    }
  } catch (error) {
    return { reason: toCairnError(error).message };
  }
}

/** A snapshot may be made from one mount of a file system to another; files are cloned within one. */
function whyApart(type: TreeHolder["type"], of: Mount | null, points: Mount | null): string | null {
  if (of?.id === points?.id) return null;
  if (of?.device !== points?.device) return "another file system";
  return type === "btrfs-snapshot" ? null : "another mount of the file system";
}

async function probeBtrfs(folder: Buffer, place: string): Promise<ProbeAnswer> {
  if (filesystemKind(folder).name !== "btrfs") return { reason: "the folder is not on btrfs" };
  if (!isSubvolume(folder))
    return {
      reason: "the folder is a plain directory, and only a subvolume can be snapshot",
      hint: "make it one: btrfs subvolume create NEW, then cp -a --reflink=always the folder's content into it",
    };
  return inTemporary(place, async (work) => {
    const held = path.join(work, "held");
    try {
      await btrfsHolder().capture(folder, held, {});
      return null;
    } catch (error) {
      const { message, hint } = toCairnError(error);
      return { reason: message, ...(hint === undefined ? {} : { hint }) };
    } finally {
      await removeHeldTree(held);
    }
  });
}

function probeReflink(work: string): ProbeAnswer {
  const [from, to] = [path.join(work, "from"), path.join(work, "to")];
  fs.writeFileSync(from, randomBytes(CLONE_BYTES));
  const source = fs.openSync(from, "r");
  const target = fs.openSync(to, "wx", 0o600);
  try {
    fs.fsyncSync(source);
    const result = cloneFile(syscalls(), source, target);
    if (cloneAnswer(result) === "cloned") return null;
    return {
      reason: "the file system does not clone files",
      hint: "xfs (made with reflink=1) and btrfs do",
    };
  } finally {
    fs.closeSync(source);
    fs.closeSync(target);
  }
}

function probeJuicefs(folder: Buffer): ProbeAnswer {
  if (mountOf(folder)?.type !== "fuse.juicefs") return { reason: "the folder is not on JuiceFS" };
  return { reason: "this version cannot use it yet" };
}

async function inTemporary(
  place: string,
  work: (folder: string) => ProbeAnswer | Promise<ProbeAnswer>,
): Promise<ProbeAnswer> {
  const folder = path.join(place, temporaryName());
  fs.mkdirSync(folder, { mode: 0o700 });
  try {
    return await work(folder);
  } finally {
    removeAll(folder);
  }
}
