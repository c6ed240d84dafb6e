/**
 * A library that remembers what was asked and answers with fixed values: the tests of the command line are about
 * arguments, printing and exit statuses. Test only.
 */
import type { CairnError } from "../errors.ts";
import type { ControlId, SavePointId, WorkspaceId } from "../ids.ts";
import type {
  CairnLibrary,
  CleanupPlan,
  Client,
  DiffResult,
  DoctorResult,
  EngineReason,
  ForkResult,
  HistoryResult,
  ListedEntry,
  RestorePlan,
  RestoreResult,
  RunResult,
  SavePoint,
  SaveResult,
  StatusResult,
  StoreInfo,
  VerifyResult,
  ViewLease,
  WorkspaceInfo,
  WorkspaceRef,
} from "../contract/index.ts";
import { CREATED, IN_PLACE, RECEIPT, REPOSITORY_ANSWERS, REPOSITORY_INFO } from "./testing-backup-lines.ts";

export const ID_A = "1a2b3c4d000000000000000000000001" as SavePointId;
export const ID_B = "5f6e7d8c000000000000000000000002" as SavePointId;
export const ROOT = "/tmp/cairn-fake/project";

export const REF: WorkspaceRef = {
  name: "main",
  path: ROOT,
  id: "0".repeat(32) as WorkspaceId,
  engine: "copy",
  control_directory: "/tmp/cairn-fake/control",
};

const STATISTICS = {
  tables: [{ name: "t", rows: 2 }],
  schema_sha256: "a".repeat(64),
  user_version: 0,
  application_id: 0,
};
const IMAGE = { path: "/tmp/cairn-fake/f", bytes: 4096, page_size: 4096, pages: 1, sha256: "b".repeat(64) };
const DATABASE_ANSWERS = {
  listDatabases: { databases: [], unread: [] },
  captureDatabase: {
    ...IMAGE,
    label: "transaction-consistent",
    method: "pinned",
    reason: null,
    held_ms: 1,
    wal_bytes_before: 0,
    wal_bytes_after: 0,
    statistics: STATISTICS,
    problems: null,
    sidecars: [],
    duration_ms: 1,
  },
  restoreDatabase: {
    ...IMAGE,
    kept: null,
    through_sqlite: false,
    recovered: false,
    statistics: STATISTICS,
    duration_ms: 1,
  },
};

const CONTENT = { content_sha256: "b".repeat(64), files: 1, bytes: 5, index_records: 1 };
const BUNDLE = { layout: "A", ...CONTENT };
const INDEXED = { indexed: 1, vectors: 1 };
const PACKED = { ...CONTENT, path: "/tmp/cairn-fake/f", uri: "viking://resources/d" };
const BROUGHT = {
  uri: "viking://resources/d",
  skipped: false,
  dry_run: false,
  files: 1,
  directories: 1,
  bytes: 5,
  vectors_from: "model",
  replaced: [],
  is_merged: false,
  ...INDEXED,
};
const BUNDLE_ANSWERS = {
  inspectBundle: {
    ...BUNDLE,
    name: "b",
    uri: "viking://resources/b",
    scope: "resources",
    scopes: ["resources"],
    directories: 1,
    has_vectors: false,
    entries: [{ path: "a.md", kind: "file", size: 5 }],
  },
  verifyBundle: { ...BUNDLE, duration_ms: 1 },
  diffBundles: { added: [], removed: ["a.md"], changed: [] },
  extractBundle: { path: "/tmp/cairn-fake/d", files: 1, directories: 1, bytes: 5 },
  convertBundle: { ...BUNDLE, path: "/tmp/cairn-fake/c" },
  exportBundle: PACKED,
  backupContext: PACKED,
  importBundle: BROUGHT,
  restoreContext: BROUGHT,
  initContext: { path: "/tmp/cairn-fake", embedding: "embedded", model: "m", dimensions: 256 },
  addToContext: { uri: "viking://resources/d", files: 1, directories: 1, bytes: 5, left_out: [], ...INDEXED },
  listContext: { entries: [{ uri: "viking://resources/d", kind: "directory", size: 0, abstract: "" }] },
  readContext: { uri: "viking://resources/d/a.md", bytes: 5, content: "hello" },
  findInContext: {
    hits: [
      { uri: "viking://resources/d/a.md", level: 2, context_type: "resource", name: "a.md", abstract: "a", score: 1 },
    ],
  },
  removeFromContext: { uri: "viking://resources/d", files: 1 },
  reindexContext: { added: 1, removed: 0, changed: 0, ...INDEXED },
  checkContext: {
    ok: true,
    expected: 1,
    indexed: 1,
    missing_records: [],
    missing_files: [],
    stale: [],
    missing_vectors: [],
  },
};

export const REASONS: EngineReason[] = [
  { engine: "btrfs-snapshot", chosen: false, reason: "not btrfs" },
  { engine: "copy", chosen: true, reason: "works everywhere" },
];

export const POINT: SavePoint = {
  save_point_id: ID_A,
  workspace_name: "main",
  created_at: "2026-11-20T09:10:11.123Z",
  sequence: 2,
  message: "second",
  tags: ["release"],
  engine: "copy",
  payload_root_hash: "a".repeat(64),
  descriptor_checksum: "b".repeat(64),
  integrity_state: "unverified",
  parent_id: ID_B,
  restored_from: null,
  cause: { kind: "person" },
  metadata_digest: "c".repeat(64),
  entries: 12,
  bytes: 34_567,
  sealed: true,
  bytes_stored: 1234,
  unchanged: false,
  complete: true,
  pinned: false,
  labels: [],
  effective_engine: "copy",
  degraded: [],
};

export const SAVED: SaveResult = {
  ...POINT,
  changes: { added: 3, modified: 1, removed: 0 },
  made: true,
  secrets: [],
  read_bytes: 4321,
  not_kept: { count: 0, paths: [] },
  duration_ms: 42,
  left_out: [],
};

export const RESTORED: RestoreResult = {
  restored_to: ID_A,
  undo_id: ID_B,
  changes: { created: 1, updated: 2, deleted: 3, metadata: 4 },
  left_out: [],
  unlinked: [],
  method: "entries",
  duration_ms: 17,
};

const PLAN: RestorePlan = {
  id: "plan-1",
  restored_to: ID_A,
  entries: [
    { action: "create", kind: "file", path: "new.txt", size: 10 },
    { action: "delete", kind: "file", path: "old.txt" },
  ],
  left_out: [],
  holders: [{ pid: 7, command: "editor", path: "old.txt" }],
};

const HISTORY: HistoryResult = {
  save_points: [
    POINT,
    { ...POINT, save_point_id: ID_B, sequence: 1, message: "first\nline two", parent_id: null, tags: [], pinned: true },
  ],
  undo: null,
  head: ID_A,
  latest: ID_A,
  damaged: [{ save_point_id: null, detail: "descriptor cut short", hint: "run doctor" }],
  truncated: false,
  total: 2,
};

const CHANGE = {
  save_point: POINT,
  change: "modified",
  kind: "file",
  aspects: ["content"],
  size_before: 1,
  size_after: 2,
};

const STATUS: StatusResult = {
  workspace: REF,
  clean: false,
  changes: { added: 1, modified: 0, removed: 2 },
  not_kept: { count: 0, paths: [] },
  head: ID_A,
  head_incomplete: null,
  missing: [],
  latest: ID_A,
  detached: false,
  engine: "copy",
  engine_reasons: REASONS,
  degraded: [],
  holders: [],
  ignored: [],
  store: { bytes: 99_999, points: 2 },
  recovered: [],
  last_save_at: "2026-11-20T09:10:11.123Z",
  last_backup: null,
  last_proof_at: null,
  watched: false,
};

const DIFF: DiffResult = {
  from: ID_A,
  to: null,
  entries: [
    { change: "modified", kind: "file", path: "a.txt", aspects: ["content"], size_before: 8, size_after: 8 },
    { change: "added", kind: "file", path: "bad\u001b[31m", path_b64: "YmFkG1szMW3/", aspects: [], size_after: 3 },
  ],
};

const LISTED: ListedEntry = {
  path: "a.txt",
  kind: "file",
  mode: 0o644,
  size: 8,
  modified_at: "2026-11-20T09:10:11.123Z",
  uid: 0,
  gid: 0,
  user: "root",
  group: "root",
};

/** What is listed below a folder. */
const LISTED_BELOW: ListedEntry[] = [
  { ...LISTED, path: "deep", kind: "directory", mode: 0o755, size: 0 },
  { ...LISTED, path: "deep/b.txt" },
];

const VERIFIED: VerifyResult = { checked: { points: 1, files: 12, bytes: 34_567 }, problems: [], unverified: [] };
const LEASE: ViewLease = {
  view_id: "v1",
  save_point_id: ID_A,
  path: "/tmp/cairn-fake/view",
  opened_at: "2026-11-20T09:10:11.123Z",
  method: "copy",
};
const FORKED: ForkResult = {
  workspace: { ...REF, name: "other", path: "/tmp/cairn-fake/other" },
  started_from: ID_A,
  save_point: POINT,
  left_out: [],
};
const DOCTOR: DoctorResult = {
  healthy: true,
  findings: [{ kind: "overlay", severity: "warning", detail: "on overlay" }],
  engine: "copy",
  engine_reasons: REASONS,
};
const STORE: StoreInfo = {
  repository: "/tmp/cairn-fake/control/store",
  password_file: "/tmp/cairn-fake/control/password",
  repository_id: "d".repeat(64),
  restic_command: "restic -r /tmp/cairn-fake/control/store --password-file /tmp/cairn-fake/control/password snapshots",
  bytes: 99_999,
  points: 2,
};
export const CLEANUP: CleanupPlan = {
  plan_id: "c1",
  created_at: "2026-11-20T09:10:11.123Z",
  protected_save_points: [ID_A],
  protected_by_history: 1,
  candidate_count: 1,
  reclaimable_save_points: [ID_B],
  reclaimable_bytes_estimate: 100,
  removals_pending: false,
  reasons: [
    { save_point_id: ID_A, keep: true, reasons: ["head"] },
    { save_point_id: ID_B, keep: false, reasons: ["no rule keeps it"] },
  ],
};
const RUN: RunResult = {
  command: ["true"],
  before: POINT,
  after: POINT,
  exit_code: 0,
  signal: null,
  duration_ms: 5,
  changes: { added: 0, modified: 0, removed: 0 },
  after_error: null,
};
const INFO: WorkspaceInfo = { ...REF, present: true, points: 2, store_bytes: 99_999, last_save_at: null };

export interface Asked {
  method: string;
  args: unknown[];
}

type Overrides = Record<string, (...args: never[]) => unknown>;

export interface FakeLibrary {
  library: CairnLibrary;
  /** Every call, in order. */
  asked: Asked[];
  closed: number;
  /** Called when the client is closed. */
  closing?: () => void;
}

const MACHINE = {
  name: "m",
  id: "a".repeat(32),
  state: "running",
  error: null,
  operation: null,
  pid: 7,
  description: "",
  image: "",
  hypervisor: "qemu pc-q35-7.2",
  accelerator: "tcg",
  cpu: "Nehalem",
  cpus: 1,
  memory: 2 ** 28,
  disks: [{ size: 2 ** 30, base: null }],
  nics: [{ network: "user", mac: "52:54:00:00:00:01" }],
  lineage: [],
  saved: "/tmp/cairn-fake/m/saved",
  console_log: "/tmp/cairn-fake/m/live/console.log",
  created_at: "2026-01-01T00:00:00.000Z",
};
const EXPORTED = {
  path: "/tmp/cairn-fake/d",
  save_point_id: ID_A,
  state_digest: "a".repeat(64),
  files: 1,
  entries: 1,
  bytes: 5,
  duration_ms: 1,
};
const STATE = { state_id: "b".repeat(32), has_memory: true, duration_ms: 1 };
const MACHINE_ANSWERS = {
  createMachine: MACHINE,
  startMachine: MACHINE,
  stopMachine: { ...MACHINE, obeyed: true },
  listMachines: { machines: [MACHINE] },
  inspectMachine: MACHINE,
  removeMachine: { name: "m" },
  saveMachine: { name: "m", ...STATE, paused_ms: 1, save_point: POINT },
  exportMachine: EXPORTED,
  cloneMachine: { ...MACHINE, ready_ms: 1, duration_ms: 1, has_memory: true },
  restoreMachine: { ...MACHINE, ...STATE, ready_ms: 1 },
};

/** Answers by name; an override may answer differently, throw or wait. */
export function fakeLibrary(overrides: Overrides = {}, created = false): FakeLibrary {
  const fake: FakeLibrary = { library: undefined as unknown as CairnLibrary, asked: [], closed: 0 };
  const answering = (answers: Record<string, unknown>): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(answers).map(([method, answer]) => [
        method,
        async (...args: unknown[]) => {
          fake.asked.push({ method, args });
          const override = overrides[method];
          return override === undefined ? answer : await override(...(args as never[]));
        },
      ]),
    );
  const client = {
    repoRoot: ROOT,
    repoId: "e".repeat(32) as ControlId,
    engineType: "copy",
    controlDirectory: REF.control_directory,
    workspace: REF,
    created,
    engineReasons: REASONS,
    conversion: null,
    followedFrom: null,
    workspacePath: () => ROOT,
    ...answering(CLIENT_ANSWERS),
    shortIds: async (ids: readonly string[]) => ids.map((id) => id.slice(0, 8)),
    async *read(target: string | null, path: unknown) {
      fake.asked.push({ method: "read", args: [target, path] });
      yield Buffer.from(target === null ? "new\ntext\n" : "old\ntext\n");
    },
    walk: walking(fake),
    [Symbol.asyncDispose]: async () => undefined,
    close: async () => {
      fake.closed++;
      fake.closing?.();
    },
  } as unknown as Client;
  const repository = {
    info: REPOSITORY_INFO,
    ...answering(REPOSITORY_ANSWERS),
    walk: walking(fake),
    close: async () => undefined,
  };
  fake.library = answering({
    initRepository: repository,
    openRepository: repository,
    verifyReceipt: RECEIPT,
    ...DATABASE_ANSWERS,
    ...BUNDLE_ANSWERS,
    ...MACHINE_ANSWERS,
    importDirectory: {
      workspace: REF,
      save_point: POINT,
      state_digest: "a".repeat(64),
      files: 1,
      bytes: 5,
      duration_ms: 1,
    },
    detectEngine: { path: ROOT, engine: "copy", engine_reasons: REASONS },
    validateEngine: undefined,
    init: client,
    adopt: client,
    open: client,
    openOrInit: client,
    openOrAdopt: client,
    find: ROOT,
    inspect: { path: `${ROOT}/x`, format: "save-point-descriptor", version: 1, bytes: 10, content: { a: 1 } },
    listWorkspaces: [INFO],
    relocate: { workspace: REF, from: "/tmp/cairn-fake/old" },
    forget: false,
  }) as unknown as CairnLibrary;
  return fake;
}

const CLIENT_ANSWERS: Record<string, unknown> = {
  createBackup: CREATED,
  restoreBackup: { ...RESTORED, ...IN_PLACE },
  backupRepository: null,
  setBackupRepository: null,
  save: SAVED,
  restore: RESTORED,
  planRestore: PLAN,
  undo: RESTORED,
  planUndo: PLAN,
  restoreLatest: RESTORED,
  history: HISTORY,
  historyDays: { days: [{ day: "2026-11-26", points: 2, newest: ID_A }], total: 2 },
  why: { path: "a.txt", changes: [CHANGE], damaged: [], truncated: false },
  latestSavePoint: POINT,
  hasSavePoints: true,
  resolve: POINT,
  status: STATUS,
  diff: DIFF,
  diffDatabase: { path: "app.db", from: ID_A, to: null, schema: [], tables: [] },
  show: { save_point: POINT, kind: "directory", path: "", entries: [LISTED], total: 1 },
  verify: VERIFIED,
  verifyAll: VERIFIED,
  fork: FORKED,
  exportPoint: EXPORTED,
  view: LEASE,
  listViews: [LEASE],
  closeView: LEASE,
  pin: { ...POINT, pinned: true },
  unpin: POINT,
  tag: POINT,
  previewCleanup: CLEANUP,
  runCleanup: { removed: [ID_B], bytes_freed: 100, complete: true, still_held: null },
  run: RUN,
  doctor: DOCTOR,
  store: STORE,
  setEngine: { path: ROOT, engine: "copy", engine_reasons: REASONS },
  seal: { sealed: 2 },
  policy: { retention: null, quota_bytes: null, kept_trees: null },
  setPolicy: { retention: { keepLast: 5 }, quota_bytes: null, kept_trees: null },
  release: { workspace: REF, points_deleted: 0, points_kept: 0, bytes_freed: 0, complete: true },
};

function walking(fake: FakeLibrary) {
  return async function* walk(...args: unknown[]) {
    fake.asked.push({ method: "walk", args });
    yield* LISTED_BELOW;
  };
}

/** For overrides: a failure as the library reports it. */
export function failing(error: CairnError): () => never {
  return () => {
    throw error;
  };
}

export const SHOWN_FILE = { save_point: POINT, kind: "file", path: "a.txt", entries: [LISTED] };

/** The arguments of the last call of a method. */
export function argsOf(fake: FakeLibrary, method: string): unknown[] {
  const call = fake.asked.findLast((asked) => asked.method === method);
  if (call === undefined) throw new Error(`${method} was not called`);
  return call.args;
}
