import {
  about,
  count,
  custom,
  flag,
  list,
  message,
  named,
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
  storedCommand,
  text,
} from "./schema.ts";
import { DatabaseProof, TableRows } from "./databases.ts";
import { MethodOption, PlanEntry, RestoreResult, SaveOptions, Secrets, UndoOptions } from "./points.ts";
import {
  allow,
  CallOptions,
  hookRuns,
  Incomplete,
  LeftOut,
  NamedPath,
  PathInput,
  PathLabel,
  pointId,
  RowsCheck,
  shownPlan,
  WorkspaceCallOptions,
} from "./words.ts";

/** Snapshots of a repository: the selection of snapshots, the results of backups, and the replacement of snapshots. */

export const RepositoryInfo = object({
  location: text("the repository's address, without secrets"),
  repository_id: text(),
  version: number(),
});
export type RepositoryInfo = Of<typeof RepositoryInfo>;

export const BackupSnapshot = object({
  snapshot_id: text(),
  created_at: text("time of the saved state"),
  uploaded_at: orNull(text("when the upload ended; null if the program that wrote the snapshot did not record it")),
  hostname: text(),
  username: text(),
  paths: rows(text()),
  tags: rows(text(), "without those that name the save point and mark the snapshot as incomplete"),
  incomplete: opt(
    flag(
      "true: entries are missing, which could not be read; absent for a snapshot of another program or of a build before this one",
    ),
  ),
  tree: text(),
  parent: orNull(text()),
  program_version: orNull(text()),
  save_point_id: orNull(pointId("null if the snapshot was not made from a save point")),
  files: orNull(number("number of files, including those in `/.cairn`; null if not recorded")),
  bytes: orNull(number()),
  bytes_stored: orNull(number("bytes that the snapshot added to the repository; null if not recorded")),
  counted: opt(
    object(
      {
        at: text("RFC 3339"),
        databases: rows(object({ ...NamedPath.entries, tables: rows(TableRows, "by name") })),
      },
      "`list`: rows of databases, counted when this user restored the snapshot and proved it; absent if that was not done",
    ),
  ),
});
export type BackupSnapshot = Of<typeof BackupSnapshot>;

export const SnapshotFilter = object({
  paths: opt(list(place(), "only snapshots that contain this folder; if repeated, all these folders"), "--path <path>"),
  hosts: opt(list(text(), "only snapshots of this host, or of any of several hosts"), "--host <name>"),
  tags: opt(
    list(
      list(text()),
      "only snapshots with all tags of this list, separated by commas, or of any of several lists; '': snapshots without tags",
    ),
    "-t, --tag <tags>",
  ),
});
export type SnapshotFilter = Of<typeof SnapshotFilter>;
export const SnapshotChoice = object({
  ...SnapshotFilter.entries,
  snapshots: opt(some(text(), "exactly these snapshots; `latest` is the newest one that matches the filter")),
});
export type SnapshotChoice = Of<typeof SnapshotChoice>;

export const dryRun = (phrase: string, help?: string) =>
  opt(flag(phrase), { flags: "--plan", ...(help === undefined ? {} : { text: help }) });
const duration = () => number("milliseconds");

export const UnreadableSnapshot = object({ snapshot_id: text(), reason: text() });
export type UnreadableSnapshot = Of<typeof UnreadableSnapshot>;

// ------------------------------------------------------------------------------------------ list, create

export const ListBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotChoice.entries,
  latest: opt(count("only this many of the newest snapshots of each host and set of paths")),
});
export type ListBackupsOptions = Of<typeof ListBackupsOptions>;
export const DamagedSnapshot = object({ snapshot_id: text(), detail: text() });
export type DamagedSnapshot = Of<typeof DamagedSnapshot>;
export const BackupList = object({
  ...RepositoryInfo.entries,
  snapshots: rows(BackupSnapshot, "oldest first"),
  damaged: rows(DamagedSnapshot, "snapshots that cannot be read; the others are listed all the same"),
});
export type BackupList = Of<typeof BackupList>;

const ofSnapshot = {
  tags: opt(list(text(), "tags for the snapshot, separated by commas"), "-t, --tag <tags>"),
  hostname: opt(text("host name to record; default: the host that made the point"), {
    flags: "--host <name>",
    text: "host name to record instead of this machine's name (also RESTIC_HOST)",
  }),
  skipIfUnchanged: opt(
    flag("make no snapshot if the newest one of the same host and path has the same content"),
    "--skip-unchanged",
  ),
  jobs: opt(
    number(
      "how many packs to upload at once (1 to 64; default 4); also the number of threads, but never more than 8 (default 2)",
    ),
    "--jobs <n>",
  ),
  dryRun: dryRun(
    "only report what would be transferred",
    "only report what would be transferred of the last save point; saves nothing and makes no folder a workspace",
  ),
};
export const ProbeResult = object({
  command: text(),
  status: orNull(number("exit status; null if the command was stopped")),
  output: text("stdout, with `$DIR` for the copy's path"),
  failure: orNull(text("how the command failed; null: it ended with status 0")),
});
export type ProbeResult = Of<typeof ProbeResult>;
export const CreateBackupOptions = object({
  ...WorkspaceCallOptions.entries,
  point: opt(text("the save point to back up; default: the current folder, which is saved first if it changed")),
  save: opt(flag("false: back up head without saving, with a warning if the folder has changed since"), {
    flags: "--no-save",
    text: "back up head without saving, and report how far the folder has changed since",
    value: false,
  }),
  message: opt(message("message of the save point that is made first"), "-m, --message <text>"),
  ...pick(
    SaveOptions,
    "cause",
    "exclude",
    "excludeCaches",
    "excludeIfPresent",
    "excludeLargerThan",
    "reread",
    "crossMounts",
    "databases",
    "secrets",
    "with",
    "rows",
    "hooks",
  ),
  allow: allow("override a guard", ["home", "nested", "git", "space", "unmounted"]),
  kept: opt(
    flag(
      "true: the repository is the workspace's kept one, so its `on_failure` is called when backups begin to fail and when they are well again",
    ),
  ),
  probe: opt(
    list(
      storedCommand(),
      'shell command that asks a copy of the folder in $DIR, for example \'sqlite3 "$DIR/a.db" "select count(*) from t"\'; its output is kept, and a restored copy that answers otherwise is damaged',
    ),
    "--probe <command>",
  ),
  ...ofSnapshot,
});
export type CreateBackupOptions = Of<typeof CreateBackupOptions>;
export const StreamBackupOptions = object({
  ...CallOptions.entries,
  ...ofSnapshot,
  dryRun: dryRun("only report what would be transferred"),
  filename: opt(text("name or path of the file in the snapshot; default `stdin`"), "--name <name>"),
});
export type StreamBackupOptions = Of<typeof StreamBackupOptions>;
export const PathsBackupOptions = object({
  ...CallOptions.entries,
  ...pick(SaveOptions, "exclude", "reread", "crossMounts", "databases", "hooks"),
  tags: ofSnapshot.tags,
  hostname: opt(text("host name to record; default: this machine's name")),
  skipIfUnchanged: ofSnapshot.skipIfUnchanged,
  jobs: ofSnapshot.jobs,
});
export type PathsBackupOptions = Of<typeof PathsBackupOptions>;
export const TransferredSize = object({
  data_blobs: number(),
  tree_blobs: number(),
  bytes: number("uncompressed bytes of these blobs"),
  stored_bytes: number("bytes of the new packs; in a dry run the stored bytes of the source's blobs"),
  packs: number(),
});
export type TransferredSize = Of<typeof TransferredSize>;
export const DatabaseInBackup = object({
  path: text(),
  path_b64: opt(text("the exact bytes in base64, if the path is not UTF-8")),
  page_size: number("bytes"),
  pages: number(),
  changed_pages: number("number of pages that the parent snapshot does not have"),
  stored: oneOf(["base", "delta", "same"], "`base`: all pages, `delta`: changed pages, `same`: nothing"),
  reason: orNull(text("why all pages were stored although the parent has the database")),
});
export type DatabaseInBackup = Of<typeof DatabaseInBackup>;
const created = {
  ...RepositoryInfo.entries,
  snapshot: orNull(about(BackupSnapshot, "null in a dry run, or if no snapshot was made because nothing changed")),
  parent: orNull(text("the previous snapshot of the same host and path")),
  unchanged: flag("true if the parent has the same content"),
  dry_run: flag(),
  added: TransferredSize,
  left_out: rows(LeftOut, "entries that the save before the backup left out"),
  duration_ms: duration(),
};
export const CreateBackupResult = object({
  ...created,
  save_point_id: pointId(),
  incomplete: orNull(about(Incomplete, "entries of the folder that the save point does not hold; exit 10")),
  secrets: Secrets,
  hooks: hookRuns(),
  databases: rows(DatabaseInBackup, "SQLite databases of 1 MiB or more, which are stored page by page"),
  rows: rows(RowsCheck, "results of `rows`"),
  probes: rows(ProbeResult, "answers of `probe` that the snapshot keeps; exit 10 if one failed"),
});
export type CreateBackupResult = Of<typeof CreateBackupResult>;
const nothing = () => custom<null>("null", "null", (value) => value === null);
/** Several folders and files are no save point. */
export const PathsBackupResult = object({
  ...created,
  save_point_id: nothing(),
  incomplete: orNull(about(Incomplete, "entries that could not be read or do not exist; exit 10")),
  hooks: hookRuns(),
  labels: rows(PathLabel, "consistency of live entries, by absolute path"),
});
export type PathsBackupResult = Of<typeof PathsBackupResult>;
/** A stream is no save point. */
export const StreamBackupResult = object({ ...created, save_point_id: nothing(), incomplete: nothing() });
export type StreamBackupResult = Of<typeof StreamBackupResult>;

// --------------------------------------------------------------------- tag, repair, rewrite, recover

export const TagBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotChoice.entries,
  add: opt(list(text(), "tags to add, separated by commas"), "--add <tags>"),
  remove: opt(list(text(), "tags to remove, separated by commas"), "--remove <tags>"),
  set: opt(list(text(), "replace all tags by these, separated by commas"), {
    flags: "--set <tags>",
    text: "replace all tags by these; '': remove all",
  }),
  dryRun: dryRun("only report which snapshots would be tagged"),
});
export type TagBackupsOptions = Of<typeof TagBackupsOptions>;
export const TaggedSnapshot = object({
  snapshot_id: text(),
  created_at: text(),
  new_id: orNull(text("id of the snapshot that replaced it; null in a dry run")),
  tags: rows(text()),
});
export type TaggedSnapshot = Of<typeof TaggedSnapshot>;
export const TagBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  tagged: rows(TaggedSnapshot, "oldest first"),
  unchanged: number("number of snapshots that have these tags already"),
  duration_ms: duration(),
});
export type TagBackupsResult = Of<typeof TagBackupsResult>;

export const RepairSnapshotsOptions = object({
  ...CallOptions.entries,
  snapshots: opt(some(text(), "only these snapshots; default: all")),
  forget: opt(flag("forget the old snapshots"), {
    text: "forget the old snapshots once the new ones are written",
  }),
  plan: opt(flag("only report what would be done")),
});
export type RepairSnapshotsOptions = Of<typeof RepairSnapshotsOptions>;
export const RepairedSnapshot = object({
  snapshot_id: text(),
  created_at: text(),
  new_id: orNull(text("id of the new snapshot without the lost entries; null in a plan, or if nothing is left")),
  forgotten: flag(),
  lost: rows(
    object({ ...NamedPath.entries, kind: oneOf(["file", "directory"]), detail: text() }),
    "lost files, and directories with everything below them; paths from the root tree",
  ),
});
export type RepairedSnapshot = Of<typeof RepairedSnapshot>;
export const RepairSnapshotsResult = object({
  ...RepositoryInfo.entries,
  plan: flag("true: nothing was changed"),
  intact: number("number of snapshots without missing data"),
  repaired: rows(RepairedSnapshot, "oldest first"),
  unreadable: rows(UnreadableSnapshot, "snapshots left as they are, because their file cannot be read: exit 6"),
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
  exclude: named(
    list(
      PathPattern,
      "remove paths that match, with everything below them: a name, the end of a path, or a whole path",
    ),
    "--exclude <pattern>",
  ),
  forget: opt(flag("forget the old snapshots")),
  dryRun: dryRun("only report what would be removed"),
});
export type RewriteBackupsOptions = Of<typeof RewriteBackupsOptions>;
export const RewriteBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  rewritten: rows(
    object({
      snapshot_id: text(),
      created_at: text(),
      new_id: orNull(text("null in a dry run, or if nothing is left")),
      forgotten: flag(),
      taken_out: rows(object({ ...NamedPath.entries, kind: oneOf(["file", "directory"]) })),
    }),
    "oldest first",
  ),
  unchanged: number("number of snapshots without a matching path"),
  unreadable: rows(UnreadableSnapshot, "snapshots left as they are, because their file cannot be read: exit 6"),
  lacking: rows(text(), "ids of snapshots left as they are because some of their data is lost: exit 6"),
  duration_ms: duration(),
});
export type RewriteBackupsResult = Of<typeof RewriteBackupsResult>;

export const RecoverBackupsOptions = object({
  ...CallOptions.entries,
  hostname: opt(text("host name to record; default: this machine's name"), "--host <name>"),
  dryRun: dryRun("only report what would be made"),
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
        object({
          tree: text(),
          path: text("in the snapshot"),
          lost: number("number of files and directories that the tree lacks"),
        }),
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
    about(
      PathInput,
      "only the content of this folder, without the folder's path; paths and patterns are relative to it",
    ),
  ),
  paths: opt(
    some(
      PathInput,
      "only these paths and everything below them, relative to the root of the snapshot; `not_found` if one does not exist",
    ),
  ),
  include: opt(
    some(PathPattern, "only paths that match (a name, the end of a path, or a whole path), and everything below them"),
    "--include <pattern>",
  ),
  exclude: opt(list(PathPattern, "leave out paths that match, and everything below them"), "--exclude <pattern>"),
});
export type PathChoice = Of<typeof PathChoice>;
export const ProofSource = oneOf(
  ["disk", "memory"],
  "where to read again from: `disk` bypasses the page cache; `memory` is faster, but proves nothing about the disk",
);
export type ProofSource = Of<typeof ProofSource>;
const restoring = {
  ...PathChoice.entries,
  latestOf: opt(about(SnapshotFilter, "choose `latest` only among these snapshots")),
  jobs: opt(number("number of threads that read and write; default 2"), "--jobs <n>"),
  prove: opt(
    flag(
      "read the restored files again, even if only a part of the snapshot is restored; default: for whole snapshots",
    ),
  ),
  proveFrom: opt(ProofSource),
  receipt: opt(place("also write the signed receipt to this new file, outside of the target"), "--receipt <file>"),
  ...pick(MethodOption, "takeOwnership"),
  sparse: opt(flag("write zeros as holes, in files for which the snapshot does not record holes")),
  dryRun: opt(flag("only report how much would be written, or which entries of a folder would change"), "--plan"),
  plan: shownPlan(),
};
export const Overwrite = oneOf(
  ["never", "if-changed", "always"],
  "when to replace existing entries that are not directories: `never`, `if-changed` (if size, times, mode, a link's target, or for root the owner differ), or `always`",
);
export type Overwrite = Of<typeof Overwrite>;
export const RestoreBackupOptions = object({
  ...CallOptions.entries,
  ...restoring,
  overwrite: opt(
    about(
      Overwrite,
      "restore into a folder that is not empty: existing entries are kept (`never`), replaced if size, times, mode, a link's target, or for root the owner differ (`if-changed`), or replaced (`always`); other entries stay",
    ),
    "--overwrite <when>",
  ),
  ownershipByName: opt(
    flag(
      "set owners and groups by the names that the snapshot has, if this machine has them too; default: by the numbers. Access lists are always restored by number",
    ),
  ),
});
export type RestoreBackupOptions = Of<typeof RestoreBackupOptions>;
export const CheckedProbe = object({
  command: text(),
  output_sha256: text("of the answer that the snapshot keeps"),
  equal: orNull(flag("true: a restored copy gives the same answer; null: the command was not run")),
});
export type CheckedProbe = Of<typeof CheckedProbe>;
export const RestoreProof = object(
  {
    state_digest: text(),
    metadata_equal: flag("true if owners, times and attributes are equal to the saved ones, too"),
    databases: rows(DatabaseProof, "SQLite databases in the restored state"),
    rows: rows(RowsCheck, "files that rows of its databases name"),
    probes: rows(CheckedProbe, "commands that the backup was made with; only `restoreCheck` runs them"),
    receipt: orNull(text("the receipt file, absolute; null if the snapshot has no digest to sign")),
  },
  "proof that the restored state is equal to the saved one",
);
export type RestoreProof = Of<typeof RestoreProof>;
export const RestoredSnapshot = object({ snapshot_id: text(), created_at: text(), hostname: text() });
export type RestoredSnapshot = Of<typeof RestoredSnapshot>;
const shown = {
  plan_id: orNull(text("of a dry run over a folder with entries: id of the plan, for `plan`; else null")),
  planned_entries: orNull(rows(PlanEntry, "with `plan_id`: the entries that would be written, changed or kept")),
};
const proven = {
  proof: orNull(about(RestoreProof, "null if nothing was proven")),
  read_again: flag("true if every restored entry was read again and is equal"),
  read_from: orNull(
    about(ProofSource, "`memory` also if the system cannot bypass the page cache; null if nothing was read again"),
  ),
  untold_files: orNull(number("number of files that can no longer be compared; null if nothing was read again")),
};
export const RestoreBackupResult = object({
  ...RepositoryInfo.entries,
  ...RestoredSnapshot.entries,
  save_point_id: orNull(pointId()),
  target: text("absolute"),
  dry_run: flag(),
  ...shown,
  entries: number(),
  bytes: number(),
  kept_bytes: number("bytes that a killed earlier run of this restore had already written"),
  overwritten: orNull(
    object(
      {
        written: number("new and replaced entries"),
        left: number("existing entries left because of `never`"),
        left_first: rows(NamedPath, "the first ten of them"),
        unchanged: number(
          "existing entries with the size, times, mode and link target of the snapshot; their content was read only if `read_again` is true",
        ),
      },
      "counts of entries other than directories; null if the target was absent or empty",
    ),
  ),
  owners: oneOf(["names", "numbers"]),
  unknown_owners: rows(
    text(),
    "with `names`: the names that this machine lacks, for example `user bob`; their entries have the numbers",
  ),
  left_out: rows(LeftOut, "not empty: exit 10"),
  ...proven,
  duration_ms: duration(),
});
export type RestoreBackupResult = Of<typeof RestoreBackupResult>;
export const RestoreInPlaceOptions = object({
  ...WorkspaceCallOptions.entries,
  ...restoring,
  ...pick(MethodOption, "throughSqlite"),
  keepPresent: opt(flag("keep entries that the snapshot does not have")),
  ...pick(UndoOptions, "cause"),
});
export type RestoreInPlaceOptions = Of<typeof RestoreInPlaceOptions>;
export const RestoreInPlaceResult = object({
  ...RepositoryInfo.entries,
  ...RestoreResult.entries,
  ...RestoredSnapshot.entries,
  target: text("the folder, absolute"),
  dry_run: flag(),
  ...shown,
  stored_bytes: orNull(number("bytes added to the workspace's store; null in a dry run")),
  ...proven,
});
export type RestoreInPlaceResult = Of<typeof RestoreInPlaceResult>;

export const VerifyReceiptOptions = object({
  ...CallOptions.entries,
  key: opt(text("require this signer: a public key in base64 or hex, or a file with one"), "--key <key>"),
});
export type VerifyReceiptOptions = Of<typeof VerifyReceiptOptions>;
export const VerifyReceiptResult = object({
  path: text(),
  trusted: flag("true: signed by the given key or by this user's own; false: only by the key in the receipt itself"),
  public_key: text(),
  receipt: record("the receipt, decoded"),
  rewritten: orNull(
    object(
      { at: text(), paths: rows(NamedPath) },
      "not null: these paths were removed from the save point after the restore, so the point has another digest now",
    ),
  ),
  sha256: text("SHA-256 of the receipt file"),
});
export type VerifyReceiptResult = Of<typeof VerifyReceiptResult>;
