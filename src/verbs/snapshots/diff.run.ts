import type { OpenRepository } from "../../backup/open/open-repository.ts";
import { reading } from "../../backup/open/session.ts";
import { findSnapshot, warnOfUnreadable } from "../../backup/open/snapshots.ts";
import { latin1 } from "../../formats/bytes.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import {
  folderIn,
  isOfFolder,
  likeFolder,
  type SnapshotSource,
  snapshotSource,
} from "../../look/sources/snapshot-source.ts";
import { areNumbersAlike, bringDiffering, without } from "../../look/sources/source.ts";
import { newPacer } from "../../pacer.ts";
import { changeOf } from "../../workspace/points/listed-entry.ts";
import { diffTrees } from "../../workspace/points/tree-diff.ts";
import type { DiffBackupsEntry, DiffBackupsOptions, DiffBackupsResult } from "./diff.ts";

const LIMIT = 100_000;

/** Compares two snapshots, or folders of them, by the trees of the saved folders. Equal trees are not read. */
export async function diffBackups(
  access: OpenRepository,
  words: { from: string; to: string },
  options: DiffBackupsOptions,
): Promise<DiffBackupsResult> {
  return reading(access, options, async (session) => {
    const [from, to] = [findSnapshot(session, words.from), findSnapshot(session, words.to)];
    warnOfUnreadable(access, session.damaged, options);
    const one = await folderIn(await snapshotSource(session, from), options.fromSubfolder);
    const other = await folderIn(await snapshotSource(session, to), options.toSubfolder);
    const before = await like(one, other);
    const after = await like(other, one);
    const byLinks = areNumbersAlike(one, other);
    await bringDiffering(before, after);
    const entries: DiffBackupsEntry[] = [];
    const pace = newPacer(options.signal);
    for (const difference of diffTrees(before, after)) {
      await pace();
      const shown = byLinks ? difference : without(difference, "links");
      if (shown !== null) {
        const { path, before, after, aspects } = shown;
        entries.push({ ...displayPath(path), ...changeOf(before, after, aspects)! });
      }
      if (entries.length > LIMIT) break;
    }
    const truncated = entries.length > LIMIT;
    return { ...access.info, from: from.id, to: to.id, entries: entries.slice(0, LIMIT), truncated };
  });
}

/** Returns the folder of a snapshot of another program that is like the saved folder of `ours`. */
async function like(source: SnapshotSource, ours: SnapshotSource): Promise<SnapshotSource> {
  if (!isOfFolder(ours)) return source;
  return likeFolder(source, new Set(Array.from(await ours.nodes(ours.root), ({ name }) => latin1(name))));
}
