import type {
  BackupSnapshot,
  CreateBackupResult,
  RepositoryInfo,
  RestoreInPlaceResult,
  RestoreResult,
} from "../contract/index.ts";
import type { SavePointId } from "../ids.ts";

/** What the tests of the command line hold `cairn backup` against. Test only. */

/** Options of each verb beside those that all have; they may grow. */
export const BACKUP_OPTIONS: Record<string, string> = {
  init: "",
  use: "--keep-last --keep-within --keep-hourly --keep-daily --keep-weekly --keep-monthly --keep-yearly --keep-within-hourly --keep-within-daily --keep-within-weekly --keep-within-monthly --keep-within-yearly --keep-tag --none --allow",
  create:
    "-m,--message --exclude --exclude-file --exclude-caches --exclude-if-present --exclude-larger-than --no-save -t,--tag --host --reread --cross-mounts --databases --with --no-secrets --allow --skip-if-unchanged --jobs --dry-run --compression --pack-size --files-from --stdin --stdin-from-command --stdin-filename",
  list: "--host --path -t,--tag --latest",
  verify: "--quick --subset --restore-check --scratch --jobs --all",
  restore:
    "--host --path -t,--tag --to --in-place --keep-present --no-prove --overwrite --prove --prove-from --receipt --include --exclude --iinclude --iexclude --sparse --jobs --path-b64 --dry-run",
  forget:
    "--host --path -t,--tag --keep-last --keep-within --keep-hourly --keep-daily --keep-weekly --keep-monthly --keep-yearly --keep-within-hourly --keep-within-daily --keep-within-weekly --keep-within-monthly --keep-within-yearly --keep-tag --group-by --prune --dry-run",
  tag: "--host --path -t,--tag --add --remove --set --dry-run",
  prune: "--max-unused --dry-run --pack-size",
  copy: "--host --path -t,--tag --to-repo --to-password-file --to-password-command --dry-run --compression --pack-size",
  find: "--host --path -t,--tag -i,--ignore-case --blob --tree --pack -n,--limit",
  diff: "--metadata",
  stats: "--host --path -t,--tag",
  show: "--host --path -t,--tag -R,--recursive --archive --target --path-b64",
  cat: "",
  rewrite: "--host --path -t,--tag --exclude --iexclude --forget --dry-run",
  recover: "--host --dry-run",
  repair: "--plan --forget",
  key: "--new-password-file --new-password-command --age-recipient --age-output",
  unlock: "--remove-all",
};

export const WRONG_BACKUPS: [string, RegExp][] = [
  ["backup nope", /unknown command|wants a verb/],
  ["backup list", /which repository/],
  ["backup use --none -r x", /nothing else/],
  ["backup use --keep-daily 7", /no repository is kept/],
  ["backup list -r x --connections 0", /at least 1/],
  ["backup list -r x --limit-upload fast", /wants a size/],
  ["backup list -r x --latest 0", /at least 1/],
  ["backup create -m text --no-save -r x", /--message is of the save/],
  ["backup create a b -m c -r x", /goes with one only/],
  ["backup create --files-from /dev/null -r x", /a regular file is wanted/],
  ["backup create ./a --stdin -r x", /no POINT/],
  ["backup create --stdin --stdin-from-command -r x", /exclude each other/],
  ["backup create --stdin head -r x", /no POINT/],
  ["backup create --exclude a --no-save -r x", /--exclude is of the save/],
  ["backup create head --exclude-caches -r x", /--exclude-caches is of the save/],
  ["backup create head --exclude-larger-than 1M -r x", /--exclude-larger-than is of the save/],
  ["backup create --exclude-larger-than lots -r x", /wants a size/],
  ["backup create --stdin --exclude-if-present .nobackup -r x", /no option of a save/],
  ["backup create --stdin-from-command -r x", /wants a command/],
  ["backup create --stdin-filename a -r x", /--stdin/],
  ["backup restore latest -r x", /--to DIR/],
  ["backup restore :src -r x --to y", /which snapshot/],
  ["backup restore latest -r x --to y --in-place", /exclude each other/],
  ["backup restore latest -r x --to y --keep-present", /--in-place/],
  ["backup restore latest -r x --in-place --overwrite always", /--to DIR/],
  ["receipt show x", /unknown command 'show'/],
  ["backup forget -r x", /wants snapshots or a rule/],
  ["backup forget 1a2b --keep-last 1 -r x", /not both/],
  ["backup forget --keep-last 1 --group-by moon -r x", /--group-by knows/],
  ["backup prune --max-unused 200 -r x", /percentage/],
  ["backup copy -r x", /--to-repo/],
  ["backup repair moon -r x", /knows index, packs and snapshots/],
  ["backup repair packs --forget -r x", /--forget is for/],
  ["backup repair index 1a -r x", /takes no packs/],
  ["backup find a -n 0 -r x", /at least 1/],
  ["backup find a --blob --pack -r x", /exclude each other/],
  ["backup diff a -r x", /missing required argument/],
  ["backup diff a:src :src -r x", /which snapshot/],
  ["backup show -r x", /missing required argument/],
  ["backup show latest:a --path-b64 YQ== -r x", /cannot be given together/],
  ["backup show :a -r x", /which snapshot/],
  ["backup show latest -r x --archive zip", /knows tar/],
  ["backup show -R latest -r x --archive tar", /-R lists/],
  ["backup key -r x", /missing required argument/],
  ["backup key list --new-password-file y -r x", /--new-password-file and/],
  ["backup key remove 1a --new-password-command y -r x", /--new-password-command work with/],
  ["backup key add --age-recipient age1 --age-output y --new-password-file z -r x", /without --age-output/],
  ["backup key turn -r x", /backup key knows/],
  ["backup key remove -r x", /wants a KEY/],
  ["backup key add --age-recipient age1x -r x", /belong together/],
  ["backup key passwd --age-recipient age1x --age-output y -r x", /backup key add/],
  ["backup verify -r x --subset 3/2", /--subset wants/],
  ["backup verify -r x --subset 1/2 --quick", /not both/],
  ["backup verify latest -r x --all", /not both/],
  ["backup verify latest -r x --scratch y", /--restore-check/],
];

/** Pinned like those of the other commands: they may grow, no name in them may go. */
export const BACKUP_DATA_KEYS: Record<string, string> = {
  "backup init -r x": "location repository_id version",
  "backup use -r x": "workspace kept",
  "backup create -r x":
    "location repository_id version snapshot save_point_id parent unchanged dry_run added incomplete left_out duration_ms secrets databases",
  "backup list -r x": "location repository_id version snapshots damaged",
  "backup verify -r x": "location repository_id version checked read_data restored problems duration_ms",
  "backup restore latest --to y -r x":
    "location repository_id version snapshot_id created_at hostname save_point_id target dry_run entries bytes kept_bytes overwritten left_out proof read_again read_from untold_files duration_ms",
  "backup restore latest --in-place -r x":
    "location repository_id version snapshot_id created_at hostname target dry_run stored_bytes restored_to undo_id changes left_out unlinked method proof read_again read_from untold_files duration_ms",
  "backup forget -r x --keep-last 1":
    "location repository_id version dry_run groups unreadable removed prune duration_ms",
  "backup prune -r x":
    "location repository_id version dry_run removed_packs repacked_packs new_packs merged_packs merged_indexes unindexed_packs bytes_freed unused_bytes postponed damaged_packs duration_ms",
  "backup copy -r x --to-repo y": "location repository_id version dry_run copied not_copied present added duration_ms",
  "backup find a -r x": "location repository_id version found truncated damaged",
  "backup diff a b -r x": "location repository_id version from to entries truncated",
  "backup stats -r x":
    "location repository_id version snapshots packs pack_bytes unindexed_packs index_files data_blobs tree_blobs plain_bytes stored_bytes selection",
  "backup show latest -r x": "location repository_id version snapshot path kind entries",
  "backup show -R latest -r x": "location repository_id version snapshot path kind entries",
  "backup cat config -r x": "location repository_id version kind id content",
  "backup repair index -r x":
    "location repository_id version plan added_packs dropped_packs damaged_indexes unreadable_packs saved_blobs lost_blobs duration_ms",
  "backup repair snapshots -r x": "location repository_id version plan intact repaired unreadable duration_ms",
  "backup key list -r x": "location repository_id version keys damaged",
  "backup unlock -r x": "location repository_id version removed held",
  "receipt verify z": "path trusted public_key receipt sha256",
};

export const BACKUP_OBJECT_KEYS = {
  snapshot:
    "snapshot_id created_at uploaded_at hostname username paths tags tree parent program_version save_point_id files bytes bytes_stored",
  backup_checked: "snapshots trees packs blobs bytes digests",
  backup_problem: "kind object detail severity losses",
  found_in_backup: "snapshot_id created_at path kind size modified_at | path_b64",
  backup_diff_entry: "path change kind aspects | path_b64 size_before size_after",
  repaired_snapshot: "snapshot_id created_at new_id forgotten lost",
  lost_entry: "path kind detail | path_b64",
  forget_group: "hostname paths tags snapshots",
  forget_decision: "snapshot_id created_at keep reasons",
  repository_key: "key_id created_at hostname username current",
  kept_repository: "repository password_file password_command age_identity retention",
  proof: "state_digest metadata_equal databases receipt",
  transferred: "data_blobs tree_blobs bytes stored_bytes packs",
} as const;

const INFO: RepositoryInfo = { location: "/tmp/cairn-fake/x", repository_id: "c".repeat(64), version: 2 };

const SNAPSHOT: BackupSnapshot = {
  snapshot_id: "d".repeat(64),
  created_at: "2026-11-20T09:10:11.123Z",
  uploaded_at: null,
  hostname: "host",
  username: "me",
  paths: ["/tmp/cairn-fake/project"],
  tags: ["release"],
  tree: "e".repeat(64),
  parent: null,
  program_version: "cairn 0.1.0",
  save_point_id: null,
  files: 3,
  bytes: 100,
  bytes_stored: 40,
};

export const CREATED: CreateBackupResult = {
  ...INFO,
  snapshot: SNAPSHOT,
  save_point_id: "1a2b3c4d000000000000000000000001" as SavePointId,
  parent: null,
  unchanged: false,
  dry_run: false,
  added: { data_blobs: 1, tree_blobs: 2, bytes: 100, stored_bytes: 90, packs: 2 },
  incomplete: null,
  databases: [],
  left_out: [],
  secrets: [],
  duration_ms: 12,
};

/** What a restore in place says beside any other restore. */
export const IN_PLACE: Omit<RestoreInPlaceResult, keyof RestoreResult> = {
  ...INFO,
  snapshot_id: SNAPSHOT.snapshot_id,
  created_at: "2026-11-20T10:11:12Z",
  hostname: "vm",
  target: "/tmp/cairn-fake",
  dry_run: false,
  stored_bytes: 0,
  proof: null,
  read_again: false,
  read_from: null,
  untold_files: null,
};

/** Answers of an open repository, by method. */
export const REPOSITORY_ANSWERS: Record<string, unknown> = {
  list: { ...INFO, snapshots: [SNAPSHOT], damaged: [] },
  verify: {
    ...INFO,
    checked: { snapshots: 1, trees: 2, packs: 3, blobs: 4, bytes: 5, digests: 1 },
    read_data: true,
    restored: [],
    problems: [],
    duration_ms: 1,
  },
  forget: { ...INFO, dry_run: false, groups: [], unreadable: [], removed: [], prune: null, duration_ms: 1 },
  prune: {
    ...INFO,
    dry_run: false,
    removed_packs: 1,
    repacked_packs: 0,
    new_packs: 0,
    merged_packs: 0,
    merged_indexes: 0,
    unindexed_packs: 0,
    bytes_freed: 100,
    unused_bytes: 0,
    postponed: false,
    damaged_packs: [],
    duration_ms: 1,
  },
  copyTo: { ...INFO, dry_run: false, copied: [], not_copied: [], present: 1, added: CREATED.added, duration_ms: 1 },
  find: { ...INFO, found: [], truncated: false, damaged: [] },
  diff: { ...INFO, from: "a", to: "b", entries: [], truncated: false },
  show: { ...INFO, snapshot: SNAPSHOT, path: "", kind: "directory", entries: [] },
  stats: {
    ...INFO,
    snapshots: 1,
    packs: 2,
    pack_bytes: 3,
    unindexed_packs: 0,
    index_files: 1,
    data_blobs: 1,
    tree_blobs: 1,
    plain_bytes: 5,
    stored_bytes: 3,
    selection: { snapshots: 1, files: 1, bytes: 5, data_blobs: 1, tree_blobs: 1, plain_bytes: 5, stored_bytes: 3 },
  },
  cat: { ...INFO, kind: "config", id: INFO.repository_id, content: {} },
  repair: {
    ...INFO,
    plan: false,
    added_packs: [],
    dropped_packs: [],
    damaged_indexes: [],
    unreadable_packs: [],
    saved_blobs: 0,
    lost_blobs: [],
    duration_ms: 1,
  },
  repairSnapshots: { ...INFO, plan: false, intact: 1, repaired: [], unreadable: [], duration_ms: 1 },
  keys: { ...INFO, keys: [], damaged: [] },
  addAgeKey: { ...INFO, keys: [], damaged: [] },
  unlock: { ...INFO, removed: 0, held: 0 },
  restore: {
    ...INFO,
    snapshot_id: SNAPSHOT.snapshot_id,
    created_at: SNAPSHOT.created_at,
    hostname: SNAPSHOT.hostname,
    save_point_id: null,
    target: "/tmp/cairn-fake/y",
    dry_run: false,
    entries: 3,
    bytes: 100,
    kept_bytes: 0,
    overwritten: null,
    left_out: [],
    proof: { state_digest: "a".repeat(64), metadata_equal: true, receipt: "/tmp/cairn-fake/receipt.json" },
    read_again: true,
    read_from: "disk",
    untold_files: 0,
    duration_ms: 1,
  },
};

export const RECEIPT = {
  path: "/tmp/cairn-fake/z",
  trusted: true,
  public_key: "k",
  receipt: { snapshot_id: SNAPSHOT.snapshot_id, repository_id: INFO.repository_id },
  sha256: "f".repeat(64),
};

export const REPOSITORY_INFO = INFO;
