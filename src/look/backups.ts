import { advice, CairnError, call, option } from "../errors.ts";
import fs from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { namedEntry, pathBelow } from "../backup/open/paths.ts";
import type { OpenRepository } from "../backup/open/open-repository.ts";
import { reading } from "../backup/open/session.ts";
import { chosenSnapshot, listBackups, publicSnapshot, warnOfUnreadable } from "../backup/open/snapshots.ts";
import type {
  BackupList,
  ListedEntry,
  LookOptions,
  PathInput,
  ReadBackupOptions,
  ShowBackupOptions,
  ShowBackupResult,
  ShowOptions,
} from "../contract/index.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { displayPath, quotedPath } from "../fs/paths/safe-path.ts";
import { workspaceRef } from "../workspace/place/find-workspace.ts";
import { kindOf } from "../workspace/points/listed-entry.ts";
import { writeArchive } from "./archive.ts";
import { rawIn, shown } from "./read.ts";
import { listedAt, walkSource } from "./show.ts";
import { type Looking, requireOwner } from "./sources/operands.ts";
import { type SnapshotSource, snapshotSource } from "./sources/snapshot-source.ts";
import { WHOLE } from "./sources/workspace-source.ts";

/** A place in a snapshot. */
interface Place {
  snapshot: string;
  path: PathInput;
}

/** Lists a directory's entries in a snapshot, or the one entry at the path itself. */
export async function showBackup(
  access: OpenRepository,
  place: Place,
  options: ShowBackupOptions & ShowOptions,
): Promise<ShowBackupResult> {
  return readingAt(access, { place, options }, async ({ source, path, node }) => {
    const { entries } = await listedAt(source, { path, node }, options);
    const kind = node === null ? "directory" : kindOf(node);
    return { ...access.info, snapshot: publicSnapshot(source.listed), ...displayPath(path), kind, entries };
  });
}

/** Lists entries of a snapshot of the workspace's folder, in the repository of the options or the kept one. */
export async function showOwnBackup(
  hand: Looking,
  place: Place,
  options: LookOptions & ShowOptions,
): Promise<ShowBackupResult> {
  requireOwner();
  const { path } = workspaceRef(hand.workspace.found);
  return hand.backups(hand.workspace, options, async (access) =>
    showBackup(access, place, { ...options, paths: [path] }),
  );
}

/** Lists the snapshots of the workspace's folder in the repository of the options or the kept one. */
export async function listOwnBackups(hand: Looking, options: LookOptions): Promise<BackupList> {
  requireOwner();
  const { path } = workspaceRef(hand.workspace.found);
  return hand.backups(hand.workspace, options, async (access) => listBackups(access, { ...options, paths: [path] }));
}

/** Lists all entries below a folder, each folder before its entries. If the path is no folder, lists only its entry. */
export async function walkBackup(
  access: OpenRepository,
  { hand, ...place }: Place & { hand: (entry: ListedEntry) => Promise<void> },
  options: ShowBackupOptions,
): Promise<void> {
  return readingAt(access, { place, options }, async ({ source, path, node }) => {
    for await (const entry of walkSource(source, { path, node, signal: options.signal })) await hand(entry);
  });
}

/**
 * Hands over the content of a file of a snapshot, or an archive of the entries at a path, in order. Each piece is
 * proven equal to the saved bytes before it is handed over.
 */
export async function readFromBackup(
  access: OpenRepository,
  { hand, ...place }: Place & { hand: (piece: Uint8Array) => Promise<void> },
  { archive, ...options }: ReadBackupOptions,
): Promise<void> {
  return readingAt(access, { place, options }, async ({ source, path, node }) => {
    const { signal } = options;
    if (archive === undefined) {
      for await (const piece of fileIn(source, { path, node, signal })) await hand(piece);
      return;
    }
    await writeArchive(source, [{ path, node }], { ...options, archive, write: hand });
  });
}

function fileIn(
  source: SnapshotSource,
  { path, node, signal }: { path: Uint8Array; node: TreeNode | null; signal: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  if (node?.type !== "file")
    throw new CairnError("conflict", `${quotedPath(path)} is not a file`, {
      hint: advice`${call("backup show", "show")} lists directories, and writes them with ${option({ archive: "tar" })}`,
    });
  const reader = {
    raw: (at: Uint8Array, range: typeof WHOLE) => rawIn({ source, name: "the snapshot" }, at, { ...range, signal }),
    surelyLacks: () => false,
  };
  const folder = (): string => fs.mkdtempSync(join(os.tmpdir(), "cairn-show-"));
  return shown(reader, { where: path, range: WHOLE, folder, signal });
}

interface FoundPlace {
  source: SnapshotSource;
  /** relative to the saved folder */
  path: Uint8Array;
  /** Null for the whole saved folder. */
  node: TreeNode | null;
}

async function readingAt<T>(
  access: OpenRepository,
  { place, options }: { place: Place; options: ShowBackupOptions },
  work: (found: FoundPlace) => Promise<T>,
): Promise<T> {
  return reading(access, options, async (session) => {
    const listed = chosenSnapshot(session, place.snapshot, { latestOf: options, onWarning: options.onWarning });
    warnOfUnreadable(access, session.damaged, options);
    const source = await snapshotSource(session, listed);
    const savedPaths = listed.snapshot.paths;
    const path = pathBelow(source.saved, savedPaths, place.path);
    const node = await namedEntry(session.reader, source.saved, { path, savedPaths });
    return work({ source, path, node });
  });
}
