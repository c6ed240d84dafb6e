import { BACKUP_DATA_KEYS, BACKUP_OBJECT_KEYS } from "./testing-backup-lines.ts";

const MACHINE =
  "name id state error operation pid description image hypervisor accelerator cpu cpus memory disks nics lineage saved console_log created_at";

/** These lists are a contract with everybody who reads the output: they may grow, no name in them may go. */

export const POINT_KEYS =
  "save_point_id workspace_name created_at sequence message tags engine payload_root_hash descriptor_checksum integrity_state parent_id restored_from cause metadata_digest sealed entries bytes bytes_stored unchanged complete pinned labels effective_engine degraded";
const RESTORE_KEYS = "restored_to undo_id changes left_out unlinked method duration_ms";
export const DATA_KEYS: Record<string, string> = {
  "init d": "workspace engine_reasons adopted",
  save: "save_point made changes read_bytes duration_ms left_out not_kept secrets",
  history: "save_points undo head latest damaged truncated total",
  "history --days": "days total",
  "why a.txt": "path changes damaged truncated",
  status:
    "workspace clean changes not_kept head head_incomplete missing latest detached engine engine_reasons degraded holders ignored store recovered last_save_at watched last_backup last_proof_at",
  diff: "from to entries",
  "diff --sql app.db": "path from to schema tables",
  "restore head": RESTORE_KEYS,
  "restore head --plan": "plan",
  undo: RESTORE_KEYS,
  "undo --plan": "plan",
  "verify --all": "checked problems unverified",
  "fork head x": "workspace started_from save_point left_out",
  "cleanup --plan": "plan",
  "cleanup --run c1": "removed bytes_freed complete still_held",
  "cleanup --keep-last 3": "removed bytes_freed complete still_held",
  "cleanup --keep-last 3 --set-policy": "policy",
  "show head": "save_point kind path entries total",
  "show -R head": "save_point kind path entries total",
  doctor: "healthy findings engine engine_reasons",
  "run -- true": "command before after exit_code signal duration_ms changes after_error",
  "export head --to-dir d": "path save_point_id state_digest files entries bytes duration_ms",
  "import --from-dir d n": "workspace save_point state_digest files bytes duration_ms",
  "clone --from-dir d n": "workspace save_point state_digest files bytes duration_ms",
  store: "repository password_file repository_id restic_command bytes points",
  "view head": "view",
  "view --list": "views",
  "view --close v1": "closed",
  "pin head": "save_point",
  "unpin head": "save_point",
  "tag head x": "save_point",
  "inspect x": "path format version bytes content",
  workspaces: "workspaces",
  "workspaces --points": "save_points",
  "relocate a b": "workspace from",
  "release d": "workspace points_deleted points_kept bytes_freed complete",
  engine: "path engine engine_reasons",
  "engine set copy": "path engine engine_reasons",
  seal: "sealed",
  "serve-context -C STORE --listen 127.0.0.1:0 --no-auth --check": "url path authentication layout",
  "serve-repository --path /tmp --listen 127.0.0.1:0 --no-auth --check":
    "url repository path append_only private_repositories authentication tls",
  "daemon --check": "socket state_directory config url",
  "service install --print": "unit commands started text",
  "bundle inspect b":
    "layout name uri scope scopes content_sha256 files directories bytes index_records has_vectors entries",
  "bundle verify b": "layout content_sha256 files bytes index_records duration_ms",
  "bundle diff a b": "added removed changed",
  "bundle extract b d": "path files directories bytes",
  "bundle convert b c": "path layout content_sha256 files bytes index_records",
  "bundle export viking://resources/d f": "path uri content_sha256 files bytes index_records",
  "bundle backup f": "path uri content_sha256 files bytes index_records",
  "bundle import b viking://resources":
    "uri skipped dry_run files directories bytes vectors_from replaced is_merged indexed vectors",
  "bundle restore b": "uri skipped dry_run files directories bytes vectors_from replaced is_merged indexed vectors",
  "context init d": "path embedding model dimensions",
  "context add viking://resources/d d": "uri files directories bytes left_out indexed vectors",
  "context ls": "entries",
  "context cat viking://resources/d/a.md": "uri bytes content",
  "context find words": "hits",
  "context rm viking://resources/d": "uri files",
  "context reindex": "added removed changed indexed vectors",
  "context check": "ok expected indexed missing_records missing_files stale missing_vectors",
  "agent install claude-code --print": "tool files",
  "agent remove claude-code": "tool files",
  mcp: "path",
  "vm create m --kernel k": MACHINE,
  "vm run m --kernel k": MACHINE,
  "vm start m": MACHINE,
  "vm stop m": `${MACHINE} obeyed`,
  "vm list": "machines",
  "vm inspect m": MACHINE,
  "vm console m": "name console_log",
  "vm rm m": "name",
  "vm save m": "name state_id has_memory paused_ms save_point duration_ms",
  "vm export m --to-dir d": "path save_point_id state_digest files entries bytes duration_ms",
  "vm clone m n": `${MACHINE} ready_ms duration_ms has_memory`,
  "vm restore m latest": `${MACHINE} state_id ready_ms duration_ms has_memory`,
  "database list d": "databases unread",
  "database capture db --to f":
    "path label method reason bytes page_size pages sha256 held_ms wal_bytes_before wal_bytes_after statistics problems sidecars duration_ms",
  "database restore f --to db":
    "path kept through_sqlite recovered bytes page_size pages sha256 statistics duration_ms",
  "completion fish": "shell script",
  "__complete points": "candidates",
  ...BACKUP_DATA_KEYS,
};

/** The keys of lines that ask a daemon, or systemd. */
export const DAEMON_KEYS = {
  "service uninstall": "unit commands",
  "service status":
    "pid started_at unclean_shutdown backend state_file config_file socket workspaces retention saves schedules limits overdue file_systems advice",
  "service logs": "records",
  "service reload": "reloaded",
  "service token create": "token_id name kind uid created_at expires_at workspaces token",
  "service token list": "tokens",
  "service token revoke x": "token_id name kind uid created_at expires_at workspaces",
  "service unregister d": "path control_directory",
  "service recover d": "path original entries control_directory",
} as const;

/** Objects inside the data: keys that are always there, then those that may be, after a bar. */
export const OBJECT_KEYS = {
  database:
    "path bytes page_size pages journal_mode wal_bytes change_counter user_version application_id written_by holders label reason | path_b64",
  database_statistics: "tables schema_sha256 user_version application_id",
  workspace: "name path id engine control_directory | path_b64",
  save_point: POINT_KEYS,
  changes: "added modified removed",
  restore_changes: "created updated deleted metadata",
  engine_reason: "engine chosen reason | hint",
  diff_entry: "path change kind aspects | path_b64 from_path from_path_b64 size_before size_after",
  listed_entry: "path kind mode size modified_at uid gid user group | path_b64 target target_b64",
  plan_entry: "action path kind | path_b64 size reason",
  restore_plan: "id restored_to entries left_out holders",
  left_out: "path reason detail | path_b64 aspects",
  ignored: "path | path_b64",
  store_size: "bytes points",
  recovered: "at operation outcome detail kept",
  cleanup_plan:
    "plan_id created_at protected_save_points protected_by_history candidate_count reclaimable_save_points reclaimable_bytes_estimate reasons removals_pending",
  cleanup_reason: "save_point_id keep reasons",
  checked: "points files bytes",
  problem: "point kind detail hint | path path_b64",
  finding: "kind severity detail | repair repaired",
  view: "view_id save_point_id path opened_at method",
  workspace_info: "name path id engine control_directory present points store_bytes last_save_at | path_b64 problem",
  policy: "retention quota_bytes kept_trees",
  error: "code message hint retryable | details",
  ...BACKUP_OBJECT_KEYS,
} as const satisfies Record<string, string>;
