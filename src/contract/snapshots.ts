import {
  about,
  custom,
  flag,
  list,
  message,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  pick,
  place,
  record,
  rows,
  some,
  text,
} from "./schema.ts";
import { DatabaseProof } from "./databases.ts";
import { RestoreResult, SaveOptions, Secrets } from "./points.ts";
import {
  CallOptions,
  Incomplete,
  LeftOut,
  NamedPath,
  PathInput,
  PathLabel,
  pointId,
  WorkspaceCallOptions,
} from "./words.ts";

/** Snapshots of a repository: which ones are meant, what a backup makes, what takes the place of others. */

export const RepositoryInfo = object({
  location: text("where it lies; never with a secret in it"),
  repository_id: text(),
  version: number(),
});
export type RepositoryInfo = Of<typeof RepositoryInfo>;

export const BackupSnapshot = object({
  snapshot_id: text(),
  created_at: text("of the state"),
  uploaded_at: orNull(text("when its upload ended; null where its writer does not say")),
  hostname: text(),
  username: text(),
  paths: rows(text()),
  tags: rows(text(), "without the one that names the save point"),
  tree: text(),
  parent: orNull(text()),
  program_version: orNull(text()),
  save_point_id: orNull(pointId("null where it was not made of a save point")),
  files: orNull(number("files in it, with those of `/.cairn`; null where its writer does not say")),
  bytes: orNull(number()),
  bytes_stored: orNull(number("what it added to the repository; null where its writer does not say")),
});
export type BackupSnapshot = Of<typeof BackupSnapshot>;

export const SnapshotFilter = object({
  paths: opt(list(text(), "only of this path")),
  hosts: opt(list(text(), "only of this host")),
  tags: opt(list(list(text()), "only with all of these tags, comma between; '': those without any")),
});
export type SnapshotFilter = Of<typeof SnapshotFilter>;
export const SnapshotChoice = object({
  ...SnapshotFilter.entries,
  snapshots: opt(some(text(), "exactly these; `latest` is the newest that the filter takes")),
});
export type SnapshotChoice = Of<typeof SnapshotChoice>;

export const dryRun = (phrase: string) => opt(flag(phrase));
const duration = () => number("milliseconds");

export const UnreadableSnapshot = object({ snapshot_id: text(), reason: text() });
export type UnreadableSnapshot = Of<typeof UnreadableSnapshot>;

// ------------------------------------------------------------------------------------------ list, create

export const ListBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotChoice.entries,
  latest: opt(number("only the newest so many of each host and paths")),
});
export type ListBackupsOptions = Of<typeof ListBackupsOptions>;
export const DamagedSnapshot = object({ snapshot_id: text(), detail: text() });
export type DamagedSnapshot = Of<typeof DamagedSnapshot>;
export const BackupList = object({
  ...RepositoryInfo.entries,
  snapshots: rows(BackupSnapshot, "oldest first"),
  damaged: rows(DamagedSnapshot, "those that cannot be read; they hide no other"),
});
export type BackupList = Of<typeof BackupList>;

const ofSnapshot = {
  tags: opt(list(text(), "tags of the snapshot, comma between")),
  hostname: opt(text("recorded as the host's name; default: where the point was made")),
  skipIfUnchanged: opt(flag("no snapshot when the newest one of the same host and path holds the same")),
  jobs: opt(number("packs on their way at once, 1 to 64, and threads, 8 of them at most; default 4 and 2")),
  dryRun: dryRun("only say what would be transferred"),
};
export const CreateBackupOptions = object({
  ...WorkspaceCallOptions.entries,
  point: opt(text("a save point; default: the folder as it is now, which is saved first unless nothing changed")),
  save: opt(flag("false: head is taken, and a warning says how far the folder has moved on from it")),
  message: opt(message("of the save point that is made first")),
  ...pick(
    SaveOptions,
    "exclude",
    "excludeCaches",
    "excludeIfPresent",
    "excludeLargerThan",
    "reread",
    "crossMounts",
    "databases",
    "secrets",
    "with",
    "allow",
  ),
  ...ofSnapshot,
});
export type CreateBackupOptions = Of<typeof CreateBackupOptions>;
export const StreamBackupOptions = object({
  ...CallOptions.entries,
  ...ofSnapshot,
  filename: opt(text("name or path of the one file in the snapshot; default `stdin`")),
});
export type StreamBackupOptions = Of<typeof StreamBackupOptions>;
export const PathsBackupOptions = object({
  ...CallOptions.entries,
  ...pick(SaveOptions, "exclude", "reread", "crossMounts", "databases"),
  tags: ofSnapshot.tags,
  hostname: opt(text("recorded as the host's name; default: this machine's")),
  skipIfUnchanged: ofSnapshot.skipIfUnchanged,
  jobs: ofSnapshot.jobs,
});
export type PathsBackupOptions = Of<typeof PathsBackupOptions>;
export const TransferredSize = object({
  data_blobs: number(),
  tree_blobs: number(),
  bytes: number("plain bytes of those blobs"),
  stored_bytes: number("bytes of new packs; in a dry run those of the blobs where they are now"),
  packs: number(),
});
export type TransferredSize = Of<typeof TransferredSize>;
export const DatabaseInBackup = object({
  path: text(),
  path_b64: opt(text("raw bytes of a path that is not UTF-8")),
  page_size: number("bytes"),
  pages: number(),
  changed_pages: number("pages that the parent does not have"),
  stored: oneOf(["base", "delta", "same"], "all of it, changed pages, or nothing"),
  reason: orNull(text("why all of it was stored though the parent has the database")),
});
export type DatabaseInBackup = Of<typeof DatabaseInBackup>;
const created = {
  ...RepositoryInfo.entries,
  snapshot: orNull(about(BackupSnapshot, "null in a dry run, and when nothing changed and none was made")),
  parent: orNull(text("the newest snapshot of the same host and path before this one")),
  unchanged: flag("true when the parent holds the same"),
  dry_run: flag(),
  added: TransferredSize,
  left_out: rows(LeftOut, "what the save before it left out"),
  duration_ms: duration(),
};
export const CreateBackupResult = object({
  ...created,
  save_point_id: pointId(),
  incomplete: orNull(about(Incomplete, "what the save point lacks of the folder; exit 10")),
  secrets: Secrets,
  databases: rows(DatabaseInBackup, "SQLite databases of more than 64 MiB, which are stored page by page"),
});
export type CreateBackupResult = Of<typeof CreateBackupResult>;
const nothing = () => custom<null>("null", "null", (value) => value === null);
/** Several folders and files are no save point. */
export const PathsBackupResult = object({
  ...created,
  save_point_id: nothing(),
  incomplete: orNull(about(Incomplete, "what could not be read, and what is not there; exit 10")),
  labels: rows(PathLabel, "consistency of what was live, by absolute paths"),
});
export type PathsBackupResult = Of<typeof PathsBackupResult>;
/** A stream is no save point. */
export const StreamBackupResult = object({ ...created, save_point_id: nothing(), incomplete: nothing() });
export type StreamBackupResult = Of<typeof StreamBackupResult>;

// --------------------------------------------------------------------- tag, repair, rewrite, recover

export const TagBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotChoice.entries,
  add: opt(list(text(), "tags to add, comma between")),
  remove: opt(list(text(), "tags to remove, comma between")),
  set: opt(list(text(), "these tags and no others, comma between")),
  dryRun: dryRun("only say which snapshots would be tagged"),
});
export type TagBackupsOptions = Of<typeof TagBackupsOptions>;
export const TaggedSnapshot = object({
  snapshot_id: text(),
  created_at: text(),
  new_id: orNull(text("of the snapshot that took its place; null in a dry run")),
  tags: rows(text()),
});
export type TaggedSnapshot = Of<typeof TaggedSnapshot>;
export const TagBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  tagged: rows(TaggedSnapshot, "oldest first"),
  unchanged: number("how many have these tags already"),
  duration_ms: duration(),
});
export type TagBackupsResult = Of<typeof TagBackupsResult>;

export const RepairSnapshotsOptions = object({
  ...CallOptions.entries,
  snapshots: opt(some(text(), "only these; default all")),
  forget: opt(flag("forget the old snapshots")),
  plan: opt(flag("only say what would be done")),
});
export type RepairSnapshotsOptions = Of<typeof RepairSnapshotsOptions>;
export const RepairedSnapshot = object({
  snapshot_id: text(),
  created_at: text(),
  new_id: orNull(text("of the snapshot without what is lost; null in a plan, and where nothing is left")),
  forgotten: flag(),
  lost: rows(
    object({ ...NamedPath.entries, kind: oneOf(["file", "directory"]), detail: text() }),
    "whole files, and directories with all below them; paths from the topmost tree",
  ),
});
export type RepairedSnapshot = Of<typeof RepairedSnapshot>;
export const RepairSnapshotsResult = object({
  ...RepositoryInfo.entries,
  plan: flag("true: nothing was changed"),
  intact: number("snapshots that lack nothing"),
  repaired: rows(RepairedSnapshot, "oldest first"),
  unreadable: rows(UnreadableSnapshot, "left as they are, as their file cannot be read: exit 6"),
  duration_ms: duration(),
});
export type RepairSnapshotsResult = Of<typeof RepairSnapshotsResult>;

/** A pattern with `*`, `?`, `[…]` and `**`, as restic has them. */
export type PathPattern = string | { pattern: string; ignoreCase: boolean };
export const PathPattern = custom<PathPattern>(
  "string | { pattern: string; ignoreCase: boolean }",
  "a pattern",
  (value) =>
    typeof value === "string" ||
    (typeof (value as { pattern?: unknown } | null)?.pattern === "string" &&
      typeof (value as { ignoreCase?: unknown }).ignoreCase === "boolean"),
);
export const RewriteBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotChoice.entries,
  exclude: list(PathPattern, "what goes, with all below it: a name, the end of a path, or a whole path"),
  forget: opt(flag("forget the old snapshots")),
  dryRun: dryRun("only say what would go"),
});
export type RewriteBackupsOptions = Of<typeof RewriteBackupsOptions>;
export const RewriteBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  rewritten: rows(
    object({
      snapshot_id: text(),
      created_at: text(),
      new_id: orNull(text("null in a dry run, and where nothing is left")),
      forgotten: flag(),
      taken_out: rows(object({ ...NamedPath.entries, kind: oneOf(["file", "directory"]) })),
    }),
    "oldest first",
  ),
  unchanged: number("how many have nothing of it"),
  unreadable: rows(UnreadableSnapshot, "left as they are, as their file cannot be read: exit 6"),
  lacking: rows(text(), "ids of those left as they are because something of them is lost: exit 6"),
  duration_ms: duration(),
});
export type RewriteBackupsResult = Of<typeof RewriteBackupsResult>;

export const RecoverBackupsOptions = object({
  ...CallOptions.entries,
  hostname: opt(text("recorded as the host's name; default: this machine's")),
  dryRun: dryRun("only say what would be made"),
});
export type RecoverBackupsOptions = Of<typeof RecoverBackupsOptions>;
export const RecoverBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  gathered: orNull(
    object({
      new_id: orNull(text("null in a dry run")),
      created_at: text(),
      trees: rows(
        object({ tree: text(), path: text("in the snapshot"), lost: number("files and directories that it lacks") }),
      ),
    }),
  ),
  unreadable: rows(object({ tree: text(), detail: text() }), "trees that cannot be read: exit 6"),
  duration_ms: duration(),
});
export type RecoverBackupsResult = Of<typeof RecoverBackupsResult>;

// --------------------------------------------------------------------------------- restore, receipts

export const PathChoice = object({
  subfolder: opt(
    about(PathInput, "only what is below this folder, without its path; paths and patterns count from it"),
  ),
  paths: opt(
    some(
      PathInput,
      "only these and what is under them, from the root of what was saved; one that is not there: `not_found`",
    ),
  ),
  include: opt(some(PathPattern, "what fits it (a name, the end of a path, a whole one), and what is under that")),
  exclude: opt(list(PathPattern, "not what fits it, nor what is under that")),
});
export type PathChoice = Of<typeof PathChoice>;
export const ProofSource = oneOf(
  ["disk", "memory"],
  "where it is read again from: `disk`, past what the system holds in memory, or `memory`: faster, and says nothing of the disk",
);
export type ProofSource = Of<typeof ProofSource>;
const restoring = {
  ...PathChoice.entries,
  latestOf: opt(about(SnapshotFilter, "what `latest` is the newest of")),
  jobs: opt(number("threads that write and read; default 2")),
  prove: opt(flag("read again what was written; default: for whole snapshots")),
  proveFrom: opt(ProofSource),
  receipt: opt(place("where the signed receipt goes, too; a file that is not there yet, outside of the target")),
  sparse: opt(flag("make holes of zeros, in files of which the snapshot does not say where holes were")),
  dryRun: dryRun("only say what would be written"),
};
export const Overwrite = oneOf(
  ["never", "if-changed", "always"],
  "what becomes of entries that are there and no directories: `never` they stay, `if-changed` they are replaced where size, times, mode (for root owners, too) or a link's target differ, `always` they are replaced",
);
export type Overwrite = Of<typeof Overwrite>;
export const RestoreBackupOptions = object({
  ...CallOptions.entries,
  ...restoring,
  overwrite: opt(
    about(Overwrite, "write into a folder that is not empty, too: what the snapshot does not have stays as it is"),
  ),
});
export type RestoreBackupOptions = Of<typeof RestoreBackupOptions>;
export const RestoreProof = object(
  {
    state_digest: text(),
    metadata_equal: flag("true when owners, times and attributes are those that were saved, too"),
    databases: rows(DatabaseProof, "SQLite databases in it"),
    receipt: orNull(text("the file, absolute; null where the snapshot records no digest to sign for")),
  },
  "what was read back is the state that was saved",
);
export type RestoreProof = Of<typeof RestoreProof>;
export const RestoredSnapshot = object({ snapshot_id: text(), created_at: text(), hostname: text() });
export type RestoredSnapshot = Of<typeof RestoredSnapshot>;
const proven = {
  proof: orNull(about(RestoreProof, "null where nothing was proven")),
  read_again: flag("true where all that is not left out was read again and is equal"),
  read_from: orNull(
    about(
      ProofSource,
      "`memory` too where the system cannot be told to read past it; null where nothing was read again",
    ),
  ),
  untold_files: orNull(
    number("files of which nothing tells any more whether they are equal; null where nothing was read again"),
  ),
};
export const RestoreBackupResult = object({
  ...RepositoryInfo.entries,
  ...RestoredSnapshot.entries,
  save_point_id: orNull(pointId()),
  target: text("absolute"),
  dry_run: flag(),
  entries: number(),
  bytes: number(),
  kept_bytes: number("of these, what a killed restore of the same had written"),
  overwritten: orNull(
    object(
      {
        written: number("new ones and those that took the place of others"),
        left: number("they were there, and `never` leaves them"),
        unchanged: number("they were there as the snapshot has them"),
      },
      "counts of entries but directories; null where the target was absent or empty",
    ),
  ),
  left_out: rows(LeftOut, "not empty: exit 10"),
  ...proven,
  duration_ms: duration(),
});
export type RestoreBackupResult = Of<typeof RestoreBackupResult>;
export const RestoreInPlaceOptions = object({
  ...WorkspaceCallOptions.entries,
  ...restoring,
  keepPresent: opt(flag("let entries stay that the snapshot does not have")),
});
export type RestoreInPlaceOptions = Of<typeof RestoreInPlaceOptions>;
export const RestoreInPlaceResult = object({
  ...RepositoryInfo.entries,
  ...RestoreResult.entries,
  ...RestoredSnapshot.entries,
  target: text("the folder, absolute"),
  dry_run: flag(),
  stored_bytes: orNull(number("what it added to the workspace's store; null in a dry run")),
  ...proven,
});
export type RestoreInPlaceResult = Of<typeof RestoreInPlaceResult>;

export const VerifyReceiptOptions = object({
  ...CallOptions.entries,
  key: opt(text("the public key that it must be signed with, in base64 or hex, or a file with it")),
});
export type VerifyReceiptOptions = Of<typeof VerifyReceiptOptions>;
export const VerifyReceiptResult = object({
  path: text(),
  trusted: flag(
    "true: signed by the key that was named, or this user's own; false: only by the one that it brings along",
  ),
  public_key: text(),
  receipt: record("the receipt, decoded"),
  sha256: text("of the file"),
});
export type VerifyReceiptResult = Of<typeof VerifyReceiptResult>;
