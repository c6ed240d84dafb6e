import fs from "node:fs";
import { append } from "../../append.ts";
import { exactNode, type LosslessByPath, OwnersByName } from "../../archive/write/exact-nodes.ts";
import { NodeWriter, type NotSet, setDirectory } from "../../archive/write/node-writer.ts";
import type { RestoreBackupOptions } from "../../contract/snapshots.ts";
import { CairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { failpoint } from "../../failpoint.ts";
import { errnoName } from "../../fs/linux/errno.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { newStatBuffer, putName, signedWide, STAT, syscallError, syscalls } from "../../fs/linux/syscalls.ts";
import { letOwnerWrite } from "../../fs/owner-writes.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { quotedPath } from "../../fs/paths/safe-path.ts";
import { arenaOver, newArena } from "../../native.ts";
import type { SnapshotContent } from "../open/content.ts";
import type { Session } from "../open/session.ts";
import { isUnreadable, type PlacedDatabase } from "../../archive/databases/placed-databases.ts";
import { DatabasePages } from "../../archive/databases/stored-database.ts";

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;

type WriteOptions = Pick<RestoreBackupOptions, "sparse" | "signal" | "ownershipByName" | "onProgress">;

export interface WrittenDatabases {
  entries: number;
  bytes: number;
  notSet: NotSet[];
  damaged: { path: Uint8Array; detail: string }[];
}

/** The databases of a snapshot's part that were chosen. `paths`: raw; null: everything. */
export function chosenDatabases(
  { root, placed }: Pick<SnapshotContent, "root" | "placed">,
  paths: readonly Uint8Array[] | null,
): readonly PlacedDatabase[] {
  const all = placed?.below(root) ?? [];
  if (paths === null) return all;
  const chosen = new PathSelection(paths);
  return all.filter(({ path }) => chosen.of(path) === "whole");
}

/**
 * Writes databases into a new folder that has all other entries already. Compares each page with its hash before the
 * file gets its name; leaves a database out if one of its pages is damaged, and writes the others.
 */
export async function writeDatabases(
  session: Session,
  databases: readonly PlacedDatabase[],
  { folder, lossless, options }: { folder: Buffer; lossless: LosslessByPath; options: WriteOptions },
): Promise<WrittenDatabases> {
  const written: WrittenDatabases = { entries: 0, bytes: 0, notSet: [], damaged: [] };
  const owners = options.ownershipByName === true ? new OwnersByName() : null;
  const root = fs.openSync(folder, DIRECTORY);
  try {
    for (const placed of databases) {
      try {
        const exact = exactNode(placed.database.manifest.node, lossless.get(latin1(placed.path)));
        const node = owners?.of(exact) ?? exact;
        await writeOne(session, root, { placed, node, written, options });
        written.entries++;
        written.bytes += placed.database.manifest.node.size;
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        written.damaged.push({ path: placed.path, detail: error.message });
      }
    }
  } finally {
    fs.closeSync(root);
  }
  return written;
}

async function writeOne(
  session: Session,
  root: number,
  {
    placed,
    node,
    written,
    options,
  }: { placed: PlacedDatabase; node: TreeNode; written: WrittenDatabases; options: WriteOptions },
): Promise<void> {
  const { path, database } = placed;
  const at = path.lastIndexOf(0x2f);
  const [above, name] = [path.subarray(0, Math.max(at, 0)), path.subarray(at + 1)];
  const pages = await DatabasePages.open(session.reader, database);
  const sys = syscalls();
  const stat = newStatBuffer();
  const names = newArena(4096);
  const directory = openBelow(sys, root, above, DIRECTORY, names);
  if (directory < 0)
    throw new CairnError("damaged", `cannot open the folder of database ${quotedPath(path)}: ${errnoName(-directory)}`);
  try {
    sys.fstat(directory, stat);
    const { words } = stat;
    const times = { mtime_sec: signedWide(words, STAT.MTIME), mtime_ns: words[STAT.MTIME_NS]! };
    const facts = { mode: words[STAT.MODE]! & 0o7777, uid: words[STAT.UID]!, gid: words[STAT.GID]!, ...times };
    // The directory already has its final mode, which may forbid writing.
    letOwnerWrite(directory);
    using finished = new DisposableStack();
    finished.defer(() => append(written.notSet, setDirectory(directory, facts, { path: above })));
    const writer = new NodeWriter({ within: directory, sparse: options.sparse === true });
    // The file has this name until all of its pages are written; a killed restore may have left it.
    const temporary = Buffer.from(`.cairn-database-${database.manifest.sha256.slice(0, 16)}`);
    writer.remove(directory, temporary);
    const place = { name: temporary, path };
    const fd = writer.create(directory, place);
    try {
      let position = 0;
      for await (const piece of pages.read(session.near, options.signal)) {
        writer.write(fd, arenaOver(piece), { offset: 0, length: piece.length, position, path });
        position += piece.length;
        options.onProgress?.({ phase: "restoring", done: written.entries, bytes: written.bytes + position });
      }
      if (options.sparse === true) writer.setSize(fd, node.size, path);
      writer.finishFile(fd, node, path);
    } catch (error) {
      writer.remove(directory, temporary);
      throw error;
    } finally {
      sys.close(fd);
    }
    failpoint("restore-backup.database-written");
    const end = putName(names, 0, temporary);
    putName(names, end, name);
    const renamed = sys.rename(directory, names, 0, directory, names, end, 0);
    if (renamed < 0) throw syscallError(renamed, `cannot rename the restored database to ${quotedPath(path)}`);
    append(written.notSet, writer.notSet);
  } finally {
    sys.close(directory);
  }
}
