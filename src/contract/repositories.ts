import {
  about,
  anything,
  count,
  custom,
  flag,
  list,
  named,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  omit,
  part,
  pick,
  place,
  rate,
  rows,
  share,
  some,
  strict,
  storedCommand,
  text,
} from "./schema.ts";
import { DatabaseProof } from "./databases.ts";
import { BackupRetention, EntryChange, LookOptions } from "./looking.ts";
import {
  BackupSnapshot,
  CheckedProbe,
  dryRun,
  RepositoryInfo,
  RestoredSnapshot,
  SnapshotChoice,
  SnapshotFilter,
  TransferredSize,
  UnreadableSnapshot,
} from "./snapshots.ts";
import {
  CallOptions,
  DamagedPoint,
  EntryKind,
  ListedEntry,
  NamedPath,
  PathInput,
  RowsCheck,
  SavePoint,
  shownPlan,
  throwOnDamage,
} from "./words.ts";
import { arg } from "./verb.ts";

/** Verbs of an open repository. A snapshot is an id, a unique prefix or `latest`; one of a save point also that point's id. */

const duration = () => number("milliseconds");
const planId = () => orNull(text("id of the plan, for `plan`; null if this is the result"));
export const snapshot = () =>
  text("a snapshot: id, prefix, `latest`, a save point's id, or a time (the newest snapshot until then)");

// -------------------------------------------------------------------------------------- open, keys, locks

export const TransferLimits = object({
  uploadRate: opt(rate("limit for uploads, in bytes a second"), {
    flags: "--limit-upload <rate>",
    text: "maximum upload rate in bytes a second, e.g. 5MiB",
  }),
  downloadRate: opt(rate("limit for downloads, in bytes a second"), {
    flags: "--limit-download <rate>",
    text: "maximum download rate in bytes a second",
  }),
  connections: opt(
    number("maximum number of concurrent requests; default at most 5 to a `rest:` server and 16 to an `s3:` server"),
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
  "compression of new data: `auto`, `fastest`: as in a workspace's store; `better`, `max`: smaller and slower; `off`: none",
);
export type Compression = Of<typeof Compression>;
export const RepositoryOptions = object(
  {
    ...CallOptions.entries,
    repository: named(place("the repository: `/path`, `local:/path`, or the URL of another storage"), {
      flags: "-r, --repo <repository>",
      text: "/path, sftp:user@host:/path, s3:https://host/bucket, rest:https://host/ (also CAIRN_REPOSITORY); default: the folder's repository, set by `backup use`",
    }),
    password: password("the repository's password; a function is called only when the password is needed"),
    env: opt(
      custom<Environment>(
        "Readonly<Record<string, string | undefined>>",
        "an object",
        (value) => typeof value === "object" && value !== null,
        {
          about: "environment variables with the storage's credentials; default: the process's environment",
        },
      ),
    ),
    limits: opt(TransferLimits),
    compression: opt(Compression, {
      text: "compression of new data: auto or fastest (as in the workspace's store), better, max, or off (also RESTIC_COMPRESSION)",
    }),
    packSize: opt(number("target size of new packs in bytes, 4 to 128 MiB; default 16 MiB")),
    soon: opt(
      oneOf(["verify", "restore"], "the call that will come first: its threads start while the key is derived"),
    ),
  },
  "`signal` aborts only the opening: later calls have their own",
);
export type RepositoryOptions = Of<typeof RepositoryOptions>;
export const InitRepositoryOptions = object({
  ...RepositoryOptions.entries,
  like: opt(
    place(
      "a workspace whose chunker parameters the repository gets, so that files backed up there with restic are deduplicated against it",
    ),
  ),
});
export type InitRepositoryOptions = Of<typeof InitRepositoryOptions>;

export const RepositoryKey = object({
  key_id: text(),
  created_at: orNull(text("null if the program that wrote the key did not record it")),
  hostname: text(),
  username: text(),
  current: flag("true for the key that opened the repository"),
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
  recipients: named(list(text(), "`age1…`; each recipient alone can decrypt the file"), {
    flags: "--age-recipient <recipient>",
    text: "generate a random password, encrypted for this recipient (age1…)",
  }),
  file: named(place("the new file"), {
    flags: "--to <file>",
    text: "new file for the encrypted password",
  }),
});
export type AgeKeyOptions = Of<typeof AgeKeyOptions>;
export const UnlockOptions = object({
  ...CallOptions.entries,
  all: opt(flag("remove all locks, even locks in use: a process that holds one may lose its work"), "--all"),
});
export type UnlockOptions = Of<typeof UnlockOptions>;
export const UnlockResult = object({
  ...RepositoryInfo.entries,
  removed: number("locks that were removed"),
  held: number("locks that remain, held by other processes"),
});
export type UnlockResult = Of<typeof UnlockResult>;

// --------------------------------------------------------------------------------------- verify, repair

export const BackupLoss = object({ ...NamedPath.entries, snapshot_id: text() });
export type BackupLoss = Of<typeof BackupLoss>;
export const BackupProblem = object({
  kind: text(
    "`key_damaged`, `index_damaged`, `snapshot_damaged`, `pack_missing`, `pack_size`, `pack_damaged`, `blob_damaged`, …; `digest_unverified` is a note: a newer program wrote the snapshot",
  ),
  object: text("name of the file or id of the blob, in hex"),
  detail: text(),
  severity: oneOf(["damage", "note"], "`damage`: exit 6; `note`: nothing is lost"),
  losses: rows(BackupLoss, "paths lost by the damage: at most 1000, and at least one of each affected snapshot"),
});
export type BackupProblem = Of<typeof BackupProblem>;
export const RestoredForCheck = object({
  ...RestoredSnapshot.entries,
  paths: rows(text(), "folders that the snapshot was made of"),
  entries: number(),
  bytes: number(),
  state_digest: orNull(text("digest of the restored state, equal to the saved one; null if it was not proven")),
  databases: rows(DatabaseProof, "SQLite databases in the restored state"),
  rows: rows(RowsCheck, "files that rows of its databases name"),
  probes: rows(CheckedProbe, "commands that the backup was made with; one that was not run: exit 10"),
  receipt: orNull(text("path of the receipt; null if the restored state was not proven, or lacks files")),
});
export type RestoredForCheck = Of<typeof RestoredForCheck>;
export const VerifyBackupOptions = object({
  ...CallOptions.entries,
  snapshots: opt(some(text(), "check only data of these snapshots; default: the whole repository")),
  quick: opt(flag("check only the structure; do not read the content of packs")),
  restoreCheck: opt(
    flag("also restore the snapshots (default: the newest), read the result back, check its databases, and remove it"),
  ),
  scratch: opt(place("folder for the test restore; default: in the user's cache directory"), "--scratch <dir>"),
  subset: opt(part("read only part n of m of the packs; the m parts together cover all packs"), {
    flags: "--subset <part>",
    text: "read only part n/m of the packs (the m parts together cover all packs), or a random share such as 10%; none: check only the structure",
  }),
  probe: opt(
    list(
      storedCommand(),
      "with `restoreCheck`: run this probe of the snapshots, too; default: those that you gave on this machine",
    ),
    {
      flags: "--probe <command>",
      text: "run this probe of the snapshots, too; default: those that you gave on this machine",
    },
  ),
  jobs: opt(
    number("number of concurrent pack downloads (1 to 64) and of threads (at most 8); default 16 and 2"),
    "--jobs <n>",
  ),
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
    digests: number("number of state digests that were proven"),
  }),
  read_data: flag("true if all requested data was read"),
  restored: rows(RestoredForCheck, "snapshots restored by `restoreCheck`"),
  problems: rows(BackupProblem),
  duration_ms: duration(),
});
export type VerifyBackupResult = Of<typeof VerifyBackupResult>;
export const DrillOptions = object({
  ...CallOptions.entries,
  folder: opt(
    place("only snapshots of this folder; default: the newest snapshot of each host and folder"),
    "--path <path>",
  ),
  ...pick(VerifyBackupOptions, "scratch", "probe", "jobs", "throwOnDamage"),
});
export type DrillOptions = Of<typeof DrillOptions>;
export const DrillResult = object({
  ...RepositoryInfo.entries,
  restored: rows(RestoredForCheck),
  problems: rows(BackupProblem),
  duration_ms: duration(),
});
export type DrillResult = Of<typeof DrillResult>;

export const RepairBackupsOptions = object({
  ...CallOptions.entries,
  what: oneOf(
    ["index", "packs"],
    "`index`: rebuild the index from the packs; `packs`: move intact blobs of damaged packs into new packs, and drop the others from the index",
  ),
  packs: opt(some(text(), "the packs to repair; default: the damaged packs that a verification of all data finds")),
  plan: opt(flag("only report what would be done")),
});
export type RepairBackupsOptions = Of<typeof RepairBackupsOptions>;
export const RepairBackupsResult = object({
  ...RepositoryInfo.entries,
  plan: flag("true: nothing was changed"),
  added_packs: rows(text(), "packs that were missing from the index and are listed now"),
  dropped_packs: rows(
    object({ pack: text(), blobs: number(), reason: text() }),
    "packs whose index entries were removed, with the reason",
  ),
  damaged_indexes: rows(text()),
  unreadable_packs: rows(
    object({ pack: text(), reason: text() }),
    "packs that are in no index and whose header cannot be read; not changed",
  ),
  saved_blobs: orNull(number("number of blobs saved from damaged packs; null in a plan")),
  lost_blobs: orNull(rows(text(), "ids of lost blobs: no other pack has them; null in a plan")),
  duration_ms: duration(),
});
export type RepairBackupsResult = Of<typeof RepairBackupsResult>;

// ---------------------------------------------------------------------------------- forget, prune, copy

export const SnapshotGrouping = oneOf(["host", "paths", "tags"]);
export type SnapshotGrouping = Of<typeof SnapshotGrouping>;
const PruneCare = {
  allow: opt(
    list(
      oneOf(["empty", "missing"]),
      "override a guard of the prune: `empty` a repository that has packs but lists no snapshot, `missing` snapshots that this host saw and that are missing for less than 23 hours",
    ),
    "--allow <guard>",
  ),
  instant: opt(flag("free unneeded packs at once, not when a second prune 23 hours later still finds them unneeded")),
};
export const PruneBackupsOptions = object({
  ...CallOptions.entries,
  maxUnused: opt(share("repack a pack if more than this share of it is unused; default 0.05"), {
    flags: "--max-unused <percent>",
    text: "repack a pack if more than this percentage of it is unused; default 5",
  }),
  ...PruneCare,
  dryRun: opt(flag("only report which packs would be marked, freed and rewritten"), "--plan"),
  plan: shownPlan(),
});
export type PruneBackupsOptions = Of<typeof PruneBackupsOptions>;
export const MissingSnapshot = object({
  snapshot_id: text(),
  created_at: text(),
  missed_at: text("when this host first missed the snapshot"),
  needed: flag("true: the snapshot's data is kept until 23 hours after `missed_at`"),
});
export type MissingSnapshot = Of<typeof MissingSnapshot>;
export const PruneBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  plan_id: planId(),
  planned_packs: orNull(
    object(
      { mark: rows(text()), free: rows(text()), rewrite: rows(text()) },
      "names of the packs that the plan marks, frees and rewrites; null if this is the result",
    ),
  ),
  removed_packs: number(),
  repacked_packs: number("packs whose used blobs were moved into new packs"),
  new_packs: number(),
  merged_packs: number("small packs that were merged; 0 with a plan, which names no merges"),
  merged_indexes: number(),
  unindexed_packs: number("packs in no index, left by killed processes"),
  bytes_freed: number(),
  marked_packs: number("packs that nothing needs, which are marked in the repository: a later prune frees them"),
  marked_bytes: number("bytes of the marked packs"),
  free_from: orNull(
    text("from then a prune frees what is marked now; null if nothing is marked, or the storage tells no time"),
  ),
  unused_bytes: number("unused bytes that stay, because repacking them would not pay"),
  postponed: flag("true if other processes used the repository, or its lists are inconsistent: the next prune deletes"),
  missing_snapshots: rows(
    MissingSnapshot,
    "snapshots that this host saw before and did not forget, but that are missing now",
  ),
  damaged_packs: rows(text(), "damaged packs, which were not changed"),
  duration_ms: duration(),
});
export type PruneBackupsResult = Of<typeof PruneBackupsResult>;
export const ForgetBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotFilter.entries,
  snapshots: opt(some(text(), "forget exactly these snapshots, instead of applying rules; also unreadable snapshots")),
  retention: opt(about(BackupRetention, "rules, applied to each group separately")),
  groupBy: opt(list(SnapshotGrouping, "what to group snapshots by; default host and paths"), {
    flags: "--group-by <what>",
    text: "group snapshots by any of host,paths,tags (default host,paths; empty: one group)",
    split: true,
  }),
  prune: opt(flag("also prune: free unused data, which no plan of this call covers")),
  ...PruneCare,
  dryRun: opt(flag("only report which snapshots would be removed, and why"), "--plan"),
  plan: shownPlan(),
});
export type ForgetBackupsOptions = Of<typeof ForgetBackupsOptions>;
export const ForgetDecision = object({
  snapshot_id: text(),
  created_at: text(),
  keep: flag(),
  reasons: rows(text(), "the rules that keep the snapshot, or the reason for its removal"),
});
export type ForgetDecision = Of<typeof ForgetDecision>;
export const ForgetGroup = object({
  hostname: orNull(text("null if snapshots are not grouped by this")),
  paths: orNull(rows(text())),
  tags: orNull(rows(text())),
  snapshots: rows(ForgetDecision, "newest first"),
});
export type ForgetGroup = Of<typeof ForgetGroup>;
export const ForgetBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  plan_id: planId(),
  groups: rows(ForgetGroup),
  unreadable: rows(UnreadableSnapshot, "snapshots removed by id although they cannot be read; they are in no group"),
  removed: rows(text()),
  prune: orNull(about(PruneBackupsResult, "null unless a prune was requested")),
  duration_ms: duration(),
});
export type ForgetBackupsResult = Of<typeof ForgetBackupsResult>;

export const CopyBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotChoice.entries,
  dryRun: dryRun("only report what would be copied"),
});
export type CopyBackupsOptions = Of<typeof CopyBackupsOptions>;
export const CopyBackupsResult = object({
  ...RepositoryInfo.entries,
  dry_run: flag(),
  copied: rows(object({ snapshot_id: text(), new_id: orNull(text("null in a dry run")) })),
  not_copied: rows(
    object({ snapshot_id: text(), detail: text() }),
    "snapshots that were not copied because some of their data is missing: exit 6",
  ),
  present: number("number of snapshots that the target already had"),
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
    files: number("files that restores of all these snapshots write, in total"),
    bytes: number("bytes of these files; each file counts once, even if it has several names"),
    data_blobs: number("each blob counts once; other snapshots may need it too"),
    tree_blobs: number(),
    plain_bytes: number(),
    stored_bytes: number(),
  },
  "totals of the chosen snapshots",
);
export type BackupSelection = Of<typeof BackupSelection>;
export const BackupStats = object({
  ...RepositoryInfo.entries,
  snapshots: number(),
  packs: number(),
  pack_bytes: number("size of all packs"),
  unindexed_packs: number(),
  index_files: number(),
  data_blobs: number(),
  tree_blobs: number(),
  plain_bytes: number("uncompressed bytes of all blobs, each counted once"),
  stored_bytes: number("stored bytes of the same blobs"),
  selection: orNull(about(BackupSelection, "null if no snapshots were chosen")),
});
export type BackupStats = Of<typeof BackupStats>;

export const FindInBackupsOptions = object({
  ...CallOptions.entries,
  ...SnapshotChoice.entries,
  object: opt(
    oneOf(["blob", "tree", "pack"], "search for the object of this type whose id, or id prefix, is the pattern"),
    {
      flags: "--object <kind>",
      text: "the pattern is an object's id: find the files that contain a blob, the directories with a tree, or the entries that need a pack",
    },
  ),
  ignoreCase: opt(flag("ignore upper and lower case in names"), "-i, --ignore-case"),
  limit: opt(number("at most this many; default 10000"), "-n, --limit <count>"),
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
  damaged: rows(DamagedInBackup, "directories that cannot be read (`/`: the whole snapshot): exit 6"),
});
export type FindInBackupsResult = Of<typeof FindInBackupsResult>;

export const WhyOptions = object({
  ...LookOptions.entries,
  limit: opt(count("at most this many; 0: all (default)"), "-n, --limit <count>"),
  in: opt(
    oneOf(["points", "backups", "all"], "search points (default), backups of this folder, or all"),
    "--in <states>",
  ),
});
export type WhyOptions = Of<typeof WhyOptions>;
export const ChangesInBackups = object({
  ...RepositoryInfo.entries,
  changes: rows(
    object({ snapshot: BackupSnapshot, ...omit(EntryChange, "back_to") }),
    "newest first, each compared with the previous snapshot of this folder",
  ),
  damaged: rows(DamagedInBackup, "snapshots in which the path cannot be read (`/`: the whole snapshot)"),
  truncated: flag("true if the limit left snapshots out"),
});
export type ChangesInBackups = Of<typeof ChangesInBackups>;
export const WhyResult = object({
  ...NamedPath.entries,
  changes: rows(
    object({ save_point: SavePoint, ...EntryChange.entries }),
    'newest first, each compared with the previous point; undo points included; empty with `in: "backups"`',
  ),
  damaged: rows(DamagedPoint),
  truncated: flag("true if the limit left points out"),
  backups: opt(about(ChangesInBackups, "the changes in backups; absent if only points were searched")),
});
export type WhyResult = Of<typeof WhyResult>;

export const ShowBackupOptions = object({ ...CallOptions.entries, ...SnapshotFilter.entries });
export type ShowBackupOptions = Of<typeof ShowBackupOptions>;
export const ReadBackupOptions = object({
  ...ShowBackupOptions.entries,
  archive: opt(
    oneOf(
      ["tar"],
      "give an archive of the entry, for a folder with everything below it, instead of a file's bytes: `tar` in pax format",
    ),
    "--archive <format>",
  ),
});
export type ReadBackupOptions = Of<typeof ReadBackupOptions>;
export const ShowBackupResult = object({
  ...RepositoryInfo.entries,
  ...NamedPath.entries,
  snapshot: BackupSnapshot,
  kind: EntryKind,
  entries: rows(ListedEntry, "the children of a directory, or the entry itself if it is not a directory"),
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

/** An open repository, whose verbs `verbs/index.ts` adds. Every call takes and releases the locks that it needs. */
export interface BackupRepository {
  readonly info: RepositoryInfo;
  /** Ends running calls on a repository of another machine with `interrupted`. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The members of a kept repository except its rules. */
export const KeptPlace = object({
  repository: text("the repository's address, without a password"),
  password_file: orNull(text("absolute")),
  password_command: orNull(text("a command that the shell runs in the current directory of the call")),
  age_identity: orNull(text("age identity file (absolute) that decrypts the password file")),
});
export type KeptPlace = Of<typeof KeptPlace>;
export const KeptRepository = object(
  {
    ...KeptPlace.entries,
    on_failure: orNull(text("command or URL of an alarm, which `createBackup` with `kept` calls")),
    probe: rows(text(), "commands that ask a copy of each backup with `kept`; see `probe` of `createBackup`"),
    retention: orNull(about(BackupRetention, "rules for a `forget` that gives none; null: none")),
    good_at: orNull(text("end of the last good backup with `kept`; null: none yet")),
  },
  "the backup repository of a workspace, and the source of its password",
);
export type KeptRepository = Of<typeof KeptRepository>;
export const KeptRepositoryEdit = strict(
  {
    repository: opt(place("a new repository; the other settings stay")),
    passwordFile: opt(orNull(place()), {
      flags: "--password-file <file>",
      text: "file with the repository's password (also CAIRN_PASSWORD_FILE)",
    }),
    passwordCommand: opt(orNull(text()), {
      flags: "--password-command <command>",
      text: "command that prints the repository's password (also CAIRN_PASSWORD_COMMAND)",
    }),
    ageIdentity: opt(orNull(place()), {
      flags: "--age-identity <file>",
      text: "age identity file that decrypts the password file (also CAIRN_AGE_IDENTITY)",
    }),
    onFailure: opt(orNull(storedCommand()), {
      flags: "--on-failure <alarm>",
      text: "shell command, or URL for a POST, that gets JSON when backups of the folder begin to fail and when they are well again ('': none)",
    }),
    probe: opt(orNull(list(storedCommand())), {
      flags: "--probe <command>",
      text: "shell command that asks a copy of each backup in $DIR, instead of the former ones ('': none)",
    }),
    retention: opt(orNull(BackupRetention)),
  },
  "an absent member stays as it is; null removes it",
);
export type KeptRepositoryEdit = Of<typeof KeptRepositoryEdit>;
