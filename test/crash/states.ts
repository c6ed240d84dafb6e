import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import {
  createSnapshot,
  createSubvolume,
  isReadOnly,
  nestedSubvolumes,
  setReadOnly,
} from "../../src/fs/linux/btrfs.ts";
import { type LoopFileSystem, withOpen } from "../fixtures/loop-file-system.ts";

/** States of the folder `root`, which a stopped command leaves, kept under names. */
export interface States {
  /** There from the beginning until `putAway`, and from `bring` on. */
  readonly root: string;
  /** Keeps a state. `isBefore`: the command has not begun, so everything is durable. */
  take(name: string, isBefore: boolean): Promise<void>;
  /** Makes a kept state that of `root`, once. */
  bring(name: string): void;
  /** Takes the present state away. */
  putAway(): void;
  close(): void;
}

/** Keeps states of a subvolume below `base`, a folder on btrfs. Inodes stay; subvolumes inside get other UUIDs. */
export async function keepSnapshots(base: string): Promise<States> {
  const root = path.join(base, "live");
  let gone = 0;
  await withOpen(base, async (fd) => createSubvolume(fd, "live"));
  return {
    root,
    take: async (name) => withOpen(base, async (fd) => withOpen(root, async (live) => snapshotAll(live, fd, name))),
    bring: (name) => fs.renameSync(path.join(base, name), root),
    putAway: () => fs.renameSync(root, path.join(base, `done-${gone++}`)),
    close: () => undefined,
  };
}

/**
 * Keeps copies of a whole disk, whose file lies on btrfs: a copy shows one moment. UUIDs of subvolumes stay. `kill`: the copies
 * have everything. `cut`: they have only the blocks that the file system had written, as after a power cut.
 */
export function keepImages(disk: LoopFileSystem, how: "kill" | "cut"): States {
  return {
    root: disk.root,
    take: async (name, isBefore) => {
      const isFrozen = isBefore || how === "kill";
      // A frozen file system has written everything.
      if (isFrozen) execFileSync("fsfreeze", ["-f", disk.root]);
      try {
        execFileSync("cp", ["--reflink=always", disk.image, `${disk.image}.${name}`]);
      } finally {
        if (isFrozen) execFileSync("fsfreeze", ["-u", disk.root]);
      }
    },
    bring: (name) => disk.bring(`${disk.image}.${name}`),
    putAway: () => undefined,
    close: () => disk.close(),
  };
}

/** Makes `name` in `parent` a snapshot of a subvolume with all subvolumes inside. */
async function snapshotAll(from: number, parent: number, name: string): Promise<void> {
  await createSnapshot(from, parent, name, { readOnly: false });
  for (const { path: inside } of nestedSubvolumes(from)) {
    const place = path.join(`/proc/self/fd/${parent}`, name, inside!.toString());
    // A nested subvolume is an empty folder in the snapshot.
    fs.rmdirSync(place);
    await withOpen(path.join(`/proc/self/fd/${from}`, inside!.toString()), async (nested) => {
      await withOpen(path.dirname(place), async (above) => snapshotAll(nested, above, path.basename(place)));
      if (isReadOnly(nested)) await withOpen(place, async (made) => setReadOnly(made, true));
    });
  }
}
