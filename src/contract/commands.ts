import {
  DoctorResult,
  EngineResult,
  InspectResult,
  RelocateResult,
  ReleaseResult,
  StoreInfo,
  WorkspaceInfo,
  seal,
} from "./care.ts";
import { BUNDLE_DATA } from "./bundles.ts";
import { CONTEXT_DATA } from "./context.ts";
import { MACHINE_DATA } from "./machines.ts";
import { ExportPointResult, ImportDirectoryResult } from "./export-directory.ts";
import { DAEMON_DATA } from "./daemon.ts";
import { CaptureDatabaseResult, DatabaseList, RestoreDatabaseResult } from "./databases.ts";
import {
  BackupRetention,
  CleanupPlan,
  CleanupResult,
  DiffDatabaseResult,
  DiffResult,
  HistoryResult,
  WhyResult,
  Retention,
  ShowResult,
  StatusResult,
  VerifyResult,
} from "./looking.ts";
import { ForkResult, RestorePlan, RestoreResult, RunResult, SaveResult, ViewLease } from "./points.ts";
import {
  CatBackupResult,
  CopyBackupsResult,
  DiffBackupsResult,
  BackupStats,
  FindInBackupsResult,
  ForgetBackupsResult,
  KeptPlace,
  PruneBackupsResult,
  RepairBackupsResult,
  RepositoryKeys,
  REPOSITORY_VERBS,
  ShowBackupResult,
  VerifyBackupResult,
} from "./repositories.ts";
import {
  anything,
  type AnySchema,
  type Entries,
  flag,
  number,
  object,
  oneOf,
  opt,
  orNull,
  pick,
  rows,
  text,
} from "./schema.ts";
import {
  BackupList,
  CreateBackupResult,
  PathsBackupResult,
  RecoverBackupsResult,
  RepairSnapshotsResult,
  RepositoryInfo,
  RestoreBackupResult,
  RestoreInPlaceResult,
  RewriteBackupsResult,
  StreamBackupResult,
  TagBackupsResult,
  VerifyReceiptResult,
} from "./snapshots.ts";
import { Conversion, EngineReason, SavePoint, WorkspaceRef } from "./words.ts";

const point = object({ save_point: SavePoint });
const plan = object({ plan: RestorePlan });
const content = { content_b64: text("content of a file of at most 256 MiB; without `--json` the bytes go to stdout") };

/** JSON has snake_case names, also of the rules of a policy. */
function inSnakeCase(entries: Entries): Entries {
  const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(entries).map(([name, schema]) => [snake(name), schema]));
}

const AgentFiles = object({
  tool: text(),
  files: rows(
    object({
      path: text("absolute"),
      changed: flag(),
      text: text("the file's new content; empty: the file was removed"),
    }),
  ),
});

/** The `data` of each command with `--json`, by the line that it begins with. */
export const COMMAND_DATA: Readonly<Record<string, AnySchema>> = {
  init: object({
    workspace: WorkspaceRef,
    engine_reasons: rows(EngineReason),
    adopted: flag("false with `--self-contained`"),
    conversion: opt(Conversion),
  }),
  save: object({
    ...point.entries,
    ...pick(SaveResult, "made", "changes", "read_bytes", "duration_ms", "left_out", "not_kept", "secrets"),
  }),
  history: HistoryResult,
  why: WhyResult,
  status: StatusResult,
  diff: DiffResult,
  "diff --sql": DiffDatabaseResult,
  restore: RestoreResult,
  "restore --plan": plan,
  undo: RestoreResult,
  "undo --plan": plan,
  show: ShowResult,
  "show POINT:FILE": object({ ...ShowResult.entries, ...content }),
  verify: VerifyResult,
  fork: ForkResult,
  export: ExportPointResult,
  import: ImportDirectoryResult,
  clone: ImportDirectoryResult,
  cleanup: CleanupResult,
  "cleanup --plan": object({ plan: CleanupPlan }),
  "cleanup --set-policy": object({
    policy: object({
      retention: orNull(object(inSnakeCase(Retention.entries))),
      quota_bytes: orNull(number("null: the default")),
      kept_trees: orNull(number("null: the default")),
    }),
  }),
  doctor: DoctorResult,
  run: RunResult,
  store: StoreInfo,
  view: object({ view: ViewLease }),
  "view --list": object({ views: rows(ViewLease) }),
  "view --close": object({ closed: ViewLease }),
  pin: point,
  unpin: point,
  tag: point,
  inspect: InspectResult,
  workspaces: object({ workspaces: rows(WorkspaceInfo) }),
  "workspaces --points": object({
    save_points: rows(object({ workspace: text("the workspace's folder, absolute"), ...SavePoint.entries })),
  }),
  relocate: RelocateResult,
  release: object({
    ...ReleaseResult.entries,
    workspace: orNull(WorkspaceRef),
  }),
  engine: EngineResult,
  seal: seal.output,
  "serve-context": object({
    url: text("`unix:PATH` for a socket"),
    path: text("path of the store"),
    authentication: oneOf(["none", "api-key"]),
    layout: oneOf(["A", "B", "C"], "layout of the bundles that the server sends"),
  }),
  "serve-repository": object({
    url: text(),
    repository: text("the repository URL for clients; USER stands for the user's name"),
    path: text(),
    append_only: flag(),
    private_repositories: flag(),
    authentication: oneOf(["none", "htpasswd"]),
    tls: flag(),
  }),
  "serve-repository --hash-password": object({ htpasswd_line: text() }),
  ...DAEMON_DATA,
  ...BUNDLE_DATA,
  ...CONTEXT_DATA,
  "agent install": AgentFiles,
  "agent remove": AgentFiles,
  "agent hook": object({ save_point_id: orNull(text("null: no point was made")) }),
  mcp: object({ path: text("the folder whose save points are served") }),
  ...MACHINE_DATA,
  completion: object({ shell: text(), script: text() }),
  __complete: object({ candidates: rows(anything()) }),
  "database list": DatabaseList,
  "database capture": CaptureDatabaseResult,
  "database restore": RestoreDatabaseResult,
  "receipt verify": VerifyReceiptResult,
  "backup init": RepositoryInfo,
  "backup use": object({
    workspace: WorkspaceRef,
    kept: orNull(object({ ...KeptPlace.entries, retention: orNull(object(inSnakeCase(BackupRetention.entries))) })),
  }),
  "backup list": BackupList,
  "backup create": CreateBackupResult,
  "backup create A B": PathsBackupResult,
  "backup create --stdin": StreamBackupResult,
  "backup verify": VerifyBackupResult,
  "backup restore": RestoreBackupResult,
  "backup restore --in-place": RestoreInPlaceResult,
  "backup forget": ForgetBackupsResult,
  "backup tag": TagBackupsResult,
  "backup prune": PruneBackupsResult,
  "backup copy": CopyBackupsResult,
  "backup find": FindInBackupsResult,
  "backup diff": DiffBackupsResult,
  "backup show": ShowBackupResult,
  "backup show SNAPSHOT:FILE": object({ ...ShowBackupResult.entries, ...content }),
  "backup show --target": object({ ...ShowBackupResult.entries, target: text("the file, absolute"), bytes: number() }),
  "backup stats": BackupStats,
  "backup cat": CatBackupResult,
  "backup rewrite": RewriteBackupsResult,
  "backup recover": RecoverBackupsResult,
  "backup repair": RepairBackupsResult,
  "backup repair snapshots": RepairSnapshotsResult,
  "backup key": RepositoryKeys,
  "backup unlock": REPOSITORY_VERBS.unlock.output,
};
