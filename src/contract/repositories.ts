import {
  about,
  anything,
  custom,
  flag,
  list,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  place,
  rows,
  some,
  strict,
  text,
} from "./schema.ts";
import { DatabaseProof } from "./databases.ts";
import { BackupRetention } from "./looking.ts";
import {
  BackupSnapshot,
  dryRun,
  RepositoryInfo,
  SnapshotChoice,
  SnapshotFilter,
  TransferredSize,
  UnreadableSnapshot,
} from "./snapshots.ts";
import { Aspect, CallOptions, EntryKind, ListedEntry, NamedPath, PathInput, throwOnDamage } from "./words.ts";
import { arg } from "./verb.ts";

/** Verbs of an open repository. A snapshot is an id, a unique prefix or `latest`; one of a save point also that point's id. */

const duration = () => number("milliseconds");
export const snapshot = () => text("a snapshot: id, prefix, `latest`, or a save point's id");

// -------------------------------------------------------------------------------------- open, keys, locks

export const TransferLimits = object({
  uploadRate: opt(number("bytes a second to the storage")),
  downloadRate: opt(number("bytes a second from it")),
  connections: opt(
    number("calls under way at once; more than 5 to a server of `rest:`, than 16 to one of `s3:`, only so"),
  ),
});
export type TransferLimits = Of<typeof TransferLimits>;
type Password = string | Uint8Array | (() => Promise<string | Uint8Array>);
export const password = (phrase: string) =>
  custom<Password>(
    "string | Uint8Array | (() => Promise<string | Uint8Array>)",
    "text, bytes or a function",
    (value) => ["string", "function"].includes(typeof value) || value instanceof Uint8Array,
    { about: phrase },
  );
type Environment = Readonly<Record<string, string | undefined>>;
export const Compression = oneOf(
  ["auto", "off", "fastest", "better", "max"],
  "of what is stored new: `auto`, `fastest`: as a workspace holds it; `better`, `max`: smaller, and slower; `off`: not at all",
);
export type Compression = Of<typeof Compression>;
export const RepositoryOptions = object(
  {
    ...CallOptions.entries,
    repository: place("`/path`, `local:/path`, or what another storage is called"),
    password: password("asked for only when it is needed"),
    env: opt(
      custom<Environment>(
        "Readonly<Record<string, string | undefined>>",
        "an object",
        (value) => typeof value === "object" && value !== null,
        {
          about: "where a storage looks up its credentials; default: the process's own",
        },
      ),
    ),
    limits: opt(TransferLimits),
    compression: opt(Compression),
    packSize: opt(number("bytes at which a new pack is closed, 4 to 128 MiB; default 16 MiB")),
    soon: opt(
      oneOf(["verify", "restore"], "the first call that will be made: its threads start while the key is derived"),
    ),
  },
  "`signal` ends opening, and nothing once it is open: each call has its own",
);
export type RepositoryOptions = Of<typeof RepositoryOptions>;
export const InitRepositoryOptions = object({
  ...RepositoryOptions.entries,
  like: opt(place("a workspace with whose cutting of large files restic shall share content there")),
});
export type InitRepositoryOptions = Of<typeof InitRepositoryOptions>;

export const RepositoryKey = object({
  key_id: text(),
  created_at: orNull(text("null where its writer did not say")),
  hostname: text(),
  username: text(),
  current: flag("true for the one that opened the repository"),
});
export type RepositoryKey = Of<typeof RepositoryKey>;
export const RepositoryKeys = object({
  ...RepositoryInfo.entries,
  keys: rows(RepositoryKey),
  damaged: rows(object({ key_id: text(), detail: text() })),
});
export type RepositoryKeys = Of<typeof RepositoryKeys>;
export const AgeKeyOptions = object({
  ...CallOptions.entries,
  recipients: list(text(), "`age1…`; each of them alone can open the file"),
  file: place("the file that is made"),
});
export type AgeKeyOptions = Of<typeof AgeKeyOptions>;
export const UnlockOptions = object({ ...CallOptions.entries, all: opt(flag("every lock, whoever has it")) });
export type UnlockOptions = Of<typeof UnlockOptions>;
export const UnlockResult = object({
  ...RepositoryInfo.entries,
  removed: number("locks that were removed"),
  held: number("locks that others have"),
});
export type UnlockResult = Of<typeof UnlockResult>;

// --------------------------------------------------------------------------------------- verify, repair

export const BackupLoss = object({ ...NamedPath.entries, snapshot_id: text() });
export type BackupLoss = Of<typeof BackupLoss>;
export const BackupProblem = object({
  kind: text(
    "`key_damaged`, `index_damaged`, `snapshot_damaged`, `pack_missing`, `pack_size`, `pack_damaged`, `blob_damaged`, …; `digest_unverified` as a note: a newer program wrote it",
  ),
  object: text("name of the file, or id of the blob, in hex"),
  detail: text(),
  severity: oneOf(["damage", "note"], "`damage`: exit 6; `note`: nothing is lost"),
  losses: rows(BackupLoss, "what it costs: at most 1000 paths, and at least one of each snapshot"),
});
export type BackupProblem = Of<typeof BackupProblem>;
export const RestoredForCheck = object({
  snapshot_id: text(),
  entries: number(),
  bytes: number(),
  state_digest: orNull(text("what was read back, and is what was saved; null where it was not proven")),
  databases: rows(DatabaseProof, "SQLite databases in it"),
});
export type RestoredForCheck = Of<typeof RestoredForCheck>;
export const VerifyBackupOptions = object({
  ...CallOptions.entries,
  snapshots: opt(some(text(), "only what these need; default: everything")),
  quick: opt(flag("structure alone: what packs hold is not read")),
  restoreCheck: opt(flag("restore them too (else the newest), read that back, check databases, remove it")),
  scratch: opt(place("where that is restored; default: in the user's cache directory")),
  subset: opt(
    object({ part: number(), of: number() }, "of the packs only part n of m; all m parts together are all packs"),
  ),
  jobs: opt(number("packs that come from far away at once, 1 to 64, and threads, 8 of them at most; default 16 and 2")),
  throwOnDamage: throwOnDamage(),
});
export type VerifyBackupOptions = Of<typeof VerifyBackupOptions>;
export const VerifyBackupResult = object({
  ...RepositoryInfo.entries,
  checked: object({
    snapshots: number(),
    trees: number(),
    packs: number(),
    blobs: number(),
    bytes: number(),
    digests: number("state digests that were proven"),
  }),
  read_data: flag("true when every byte was read that was asked for"),
  restored: rows(RestoredForCheck, "with `restoreCheck`"),
  problems: rows(BackupProblem),
  duration_ms: duration(),
});
export type VerifyBackupResult = Of<typeof VerifyBackupResult>;

export const RepairBackupsOptions = object({
  ...CallOptions.entries,
  what: oneOf(
    ["index", "packs"],
    "`index`: index files say again what packs there are; `packs`: what is sound in damaged packs goes into new ones, the rest counts as absent",
  ),
  packs: opt(some(text(), "which packs; default those that a verification of every byte finds")),
  plan: opt(flag("only say what would be done")),
});
export type RepairBackupsOptions = Of<typeof RepairBackupsOptions>;
export const RepairBackupsResult = object({
  ...RepositoryInfo.entries,
  plan: flag("true: nothing was changed"),
  added_packs: rows(text(), "packs that no index listed and that are listed now"),
  dropped_packs: rows(object({ pack: text(), blobs: number(), reason: text() }), "packs whose entries went, and why"),
  damaged_indexes: rows(text()),
  unreadable_packs: rows(
    object({ pack: text(), reason: text() }),
    "packs that no index lists and whose header cannot be read; left alone",
  ),
  saved_blobs: orNull(number("blobs that were saved out of damaged packs; null in a plan")),
  lost_blobs: orNull(rows(text(), "ids of blobs that are in no other pack; null in a plan")),
  duration_ms: duration(),
});
export type RepairBackupsResult = Of<typeof RepairBackupsResult>;

// ---------------------------------------------------------------------------------- forget, prune, copy

export const SnapshotGrouping = oneOf(["host", "paths", "tags"]);
export type SnapshotGrouping = Of<typeof SnapshotGrouping>;
const PruneCare = {
  allow: opt(
    list(oneOf(["empty"]), "override a guard of the prune: `empty` a repository that has packs and lists no snapshot"),
  ),
  instant: opt(flag("free at once what only missing snapshots need, also those first missed in the last 24 hours")),
};
export const PruneBackupsOptions = object({
  ...CallOptions.entries,
  maxUnused: opt(number("write a pack anew when more than this share of it is not needed; default 0.05")),
  ...PruneCare,
  dryRun: dryRun("only say what would be freed"),
});
export type PruneBackupsOptions = Of<typeof PruneBackupsOptions>;
export const MissingSnapshot = object({
  snapshot_id: text(),
  created_at: text(),
  missed_at: text("when a list of this host first lacked it"),
  needed: flag("true: what it needs stays, for 24 hours after `missed_at`"),
});
export type MissingSnapshot = Of<typeof MissingSnapshot>;
export const PruneBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  removed_packs: number(),
  repacked_packs: number("packs whose needed content was put into new ones"),
  new_packs: number(),
  merged_packs: number("small packs that became fewer; 0 in a dry run"),
  merged_indexes: number(),
  unindexed_packs: number("packs in no index, left by writers that were killed"),
  bytes_freed: number(),
  unused_bytes: number("bytes that nothing needs and that stay, as writing their packs anew would not pay"),
  postponed: flag("true when others used the repository, or its lists are wrong: the next prune deletes"),
  missing_snapshots: rows(
    MissingSnapshot,
    "snapshots that this host saw before, did not forget itself, and does not find now",
  ),
  damaged_packs: rows(text(), "packs that were left alone because they are damaged"),
  duration_ms: duration(),
});
export type PruneBackupsResult = Of<typeof PruneBackupsResult>;
export const ForgetBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotFilter.entries,
  snapshots: opt(some(text(), "exactly these, instead of rules; also those that cannot be read")),
  retention: opt(about(BackupRetention, "for each group of its own")),
  groupBy: opt(list(SnapshotGrouping, "what makes a group; default host and paths")),
  prune: opt(flag("free what nothing needs any more, too")),
  ...PruneCare,
  dryRun: dryRun("only say what would go, and why"),
});
export type ForgetBackupsOptions = Of<typeof ForgetBackupsOptions>;
export const ForgetDecision = object({
  snapshot_id: text(),
  created_at: text(),
  keep: flag(),
  reasons: rows(text(), "the rules that keep it, or why it goes"),
});
export type ForgetDecision = Of<typeof ForgetDecision>;
export const ForgetGroup = object({
  hostname: orNull(text("null is what does not make groups")),
  paths: orNull(rows(text())),
  tags: orNull(rows(text())),
  snapshots: rows(ForgetDecision, "newest first"),
});
export type ForgetGroup = Of<typeof ForgetGroup>;
export const ForgetBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  groups: rows(ForgetGroup),
  unreadable: rows(UnreadableSnapshot, "those that were named and cannot be read: they go too, of no group"),
  removed: rows(text()),
  prune: orNull(about(PruneBackupsResult, "null unless it was asked for")),
  duration_ms: duration(),
});
export type ForgetBackupsResult = Of<typeof ForgetBackupsResult>;

export const CopyBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotChoice.entries,
  dryRun: dryRun("only say what would be copied"),
});
export type CopyBackupsOptions = Of<typeof CopyBackupsOptions>;
export const CopyBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  copied: rows(object({ snapshot_id: text(), new_id: orNull(text("null in a dry run")) })),
  not_copied: rows(object({ snapshot_id: text(), detail: text() }), "those that lack something: exit 6"),
  present: number("how many were there already"),
  added: TransferredSize,
  duration_ms: duration(),
});
export type CopyBackupsResult = Of<typeof CopyBackupsResult>;

// ---------------------------------------------------------------------------------------------- looking

export const BackupStatsOptions = object({ ...CallOptions.entries, ...SnapshotChoice.entries });
export type BackupStatsOptions = Of<typeof BackupStatsOptions>;
export const BackupSelection = object(
  {
    snapshots: number(),
    files: number("what a restore of each of them writes, together"),
    bytes: number("of each file once, whatever names it has"),
    data_blobs: number("each counted once; others may need them too"),
    tree_blobs: number(),
    plain_bytes: number(),
    stored_bytes: number(),
  },
  "what chosen snapshots hold",
);
export type BackupSelection = Of<typeof BackupSelection>;
export const BackupStats = object({
  ...RepositoryInfo.entries,
  snapshots: number(),
  packs: number(),
  pack_bytes: number("of all packs"),
  unindexed_packs: number(),
  index_files: number(),
  data_blobs: number(),
  tree_blobs: number(),
  plain_bytes: number("of all blobs, each counted once"),
  stored_bytes: number("encrypted bytes of the same"),
  selection: orNull(about(BackupSelection, "null where no snapshots were asked about")),
});
export type BackupStats = Of<typeof BackupStats>;

export const FindInBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotChoice.entries,
  object: opt(oneOf(["blob", "tree", "pack"], "the pattern is the id of such an object, or a prefix")),
  ignoreCase: opt(flag("upper and lower case of names are the same")),
  limit: opt(number("at most so many; default 10000")),
});
export type FindInBackupsOptions = Of<typeof FindInBackupsOptions>;
export const FoundInBackup = object({
  ...NamedPath.entries,
  snapshot_id: text(),
  created_at: text(),
  kind: text(),
  size: orNull(number()),
  modified_at: orNull(text("null for the topmost directory")),
});
export type FoundInBackup = Of<typeof FoundInBackup>;
export const DamagedInBackup = object({ ...NamedPath.entries, snapshot_id: text(), detail: text() });
export type DamagedInBackup = Of<typeof DamagedInBackup>;
export const FindInBackupsResult = object({
  ...RepositoryInfo.entries,
  found: rows(FoundInBackup, "newest snapshot first; paths from `/`"),
  truncated: flag(),
  damaged: rows(DamagedInBackup, "directories that cannot be read, or the whole snapshot as `/`: exit 6"),
});
export type FindInBackupsResult = Of<typeof FindInBackupsResult>;

export const DiffBackupsOptions = object({
  ...CallOptions.entries,
  fromSubfolder: opt(about(PathInput, "a folder of the first instead of all; paths count from it")),
  toSubfolder: opt(about(PathInput, "a folder of the second")),
});
export type DiffBackupsOptions = Of<typeof DiffBackupsOptions>;
export const DiffBackupsEntry = object({
  ...NamedPath.entries,
  change: oneOf(["added", "removed", "modified"]),
  kind: text(),
  aspects: rows(Aspect, "what differs; empty for added and removed"),
  size_before: opt(number()),
  size_after: opt(number()),
});
export type DiffBackupsEntry = Of<typeof DiffBackupsEntry>;
export const DiffBackupsResult = object({
  ...RepositoryInfo.entries,
  from: text(),
  to: text(),
  entries: rows(DiffBackupsEntry),
  truncated: flag(),
});
export type DiffBackupsResult = Of<typeof DiffBackupsResult>;

export const ShowBackupOptions = object({ ...CallOptions.entries, ...SnapshotFilter.entries });
export type ShowBackupOptions = Of<typeof ShowBackupOptions>;
export const ReadBackupOptions = object({
  ...ShowBackupOptions.entries,
  archive: opt(
    oneOf(["tar"], "an archive of all at and below the path, instead of a file's bytes: `tar` in pax format"),
  ),
});
export type ReadBackupOptions = Of<typeof ReadBackupOptions>;
export const ShowBackupResult = object({
  ...RepositoryInfo.entries,
  ...NamedPath.entries,
  snapshot: BackupSnapshot,
  kind: EntryKind,
  entries: rows(ListedEntry, "the children of a directory; of anything else the entry itself"),
});
export type ShowBackupResult = Of<typeof ShowBackupResult>;
export const CatBackupResult = object({
  ...RepositoryInfo.entries,
  kind: text(),
  id: text(),
  content: anything("decoded JSON, without secrets"),
});
export type CatBackupResult = Of<typeof CatBackupResult>;

// ------------------------------------------------------------------------------------------------ verbs

/** The repository that a library call has opened. */
export const repository = (phrase: string) =>
  custom<BackupRepository>("BackupRepository", "an object", (value) => typeof value === "object" && value !== null, {
    about: phrase,
  });
export const shown = [arg("snapshot", snapshot()), arg("path", opt(PathInput))] as const;
export const lookErrors = ["not_found", "ambiguous", "damaged"] as const;

/** An open repository, whose verbs `verbs/index.ts` adds. Every call takes and gives back the locks that it needs. */
export interface BackupRepository {
  readonly info: RepositoryInfo;
  /** Ends calls under way on a repository off the machine with `interrupted`. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The members of a kept repository but for its rules. */
export const KeptPlace = object({
  repository: text("where it lies; never with a password in it"),
  password_file: orNull(text("absolute")),
  password_command: orNull(text("run by the shell, in the folder that the call is made in")),
  age_identity: orNull(text("absolute; opens a password file that age encrypted")),
});
export type KeptPlace = Of<typeof KeptPlace>;
export const KeptRepository = object(
  { ...KeptPlace.entries, retention: orNull(about(BackupRetention, "of a `forget` without rules; null: none")) },
  "the repository that a workspace is backed up into, and where its password comes from",
);
export type KeptRepository = Of<typeof KeptRepository>;
export const KeptRepositoryEdit = strict(
  {
    repository: opt(place("another one; what was kept with the former goes")),
    passwordFile: opt(orNull(place())),
    passwordCommand: opt(orNull(text())),
    ageIdentity: opt(orNull(place())),
    retention: opt(orNull(BackupRetention)),
  },
  "an absent member stays as it is, null takes it away",
);
export type KeptRepositoryEdit = Of<typeof KeptRepositoryEdit>;
