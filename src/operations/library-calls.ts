import type {
  AdoptOptions,
  AgeKeyOptions,
  BackupRepository,
  BackupRetention,
  CairnLibrary,
  CallOptions,
  CleanupOptions,
  Client,
  CopyBackupsOptions,
  CreateBackupOptions,
  DiffBackupsOptions,
  DiffOptions,
  DoctorOptions,
  EngineOptions,
  FindInBackupsOptions,
  ForgetBackupsOptions,
  ForkOptions,
  HistoryOptions,
  InitOptions,
  InitRepositoryOptions,
  InspectOptions,
  ListBackupsOptions,
  OpenOptions,
  RelocateOptions,
  PolicyEdit,
  PruneBackupsOptions,
  ReleaseOptions,
  RepairBackupsOptions,
  RepairSnapshotsOptions,
  RepositoryOptions,
  RestoreBackupOptions,
  RestoreInPlaceOptions,
  RestoreOptions,
  Retention,
  RunOptions,
  SaveOptions,
  SealWhenIdleOptions,
  SnapshotChoice,
  ShowBackupOptions,
  SnapshotFilter,
  StreamBackupOptions,
  RecoverBackupsOptions,
  RewriteBackupsOptions,
  TagBackupsOptions,
  TransferLimits,
  UndoOptions,
  VerifyBackupOptions,
  VerifyOptions,
  VerifyReceiptOptions,
  WorkspaceCallOptions,
} from "./contract.ts";
import {
  anything,
  callback,
  either,
  flag,
  list,
  members,
  message,
  number,
  object,
  oneOf,
  optional,
  orNull,
  password,
  path,
  place,
  type Shape,
  signal,
  some,
  stream,
  text,
} from "./call-shapes.ts";
import type { Call, CallsOf } from "./checked-calls.ts";

/** What each call of the library takes, as `contract.ts` says it; a member that is missing here does not compile. */

const texts = list(text);
const engine = oneOf("btrfs-snapshot", "juicefs-clone", "reflink-copy", "copy");
const pattern = either(
  text,
  members<{ pattern: string; ignoreCase: boolean }>({ pattern: text, ignoreCase: flag }, { needed: ["pattern"] }),
);
const method = oneOf("exchange", "entries");

const CALL = { signal, onProgress: callback, onWarning: callback, lockTimeoutMs: number };
const IN_WORKSPACE = { ...CALL, workspaceName: text };
const INIT = { ...CALL, name: text, engineType: engine, quotaBytes: number, allow: texts };
const FILTER = { paths: texts, hosts: texts, tags: list(texts) };
const CHOICE = { ...FILTER, snapshots: some(text) };
const UNWANTED = { excludeCaches: flag, excludeIfPresent: texts, excludeLargerThan: number };
const CHOSEN_PATHS = { subfolder: path, paths: some(path), include: some(pattern), exclude: list(pattern) };
const FROM_BACKUP = {
  ...CHOSEN_PATHS,
  latestOf: members<SnapshotFilter>(FILTER),
  jobs: number,
  prove: flag,
  proveFrom: oneOf("disk", "memory"),
  receipt: place,
  sparse: flag,
  dryRun: flag,
};
const STREAM = { ...CALL, tags: texts, hostname: text, skipIfUnchanged: flag, dryRun: flag, filename: text };
const REPOSITORY = {
  ...CALL,
  repository: place,
  password,
  env: object,
  limits: members<TransferLimits>({ uploadRate: number, downloadRate: number, connections: number }),
  soon: oneOf("verify", "restore"),
};
/** A rule whose name is wrong would be lost, and more be removed than was meant; what rules say is checked with them. */
const KEPT = {
  keepLast: anything,
  keepWithin: anything,
  keepHourly: anything,
  keepDaily: anything,
  keepWeekly: anything,
  keepMonthly: anything,
  keepYearly: anything,
  keepWithinHourly: anything,
  keepWithinDaily: anything,
  keepWithinWeekly: anything,
  keepWithinMonthly: anything,
  keepWithinYearly: anything,
  keepTags: texts,
};
const keepUndo = members<NonNullable<Retention["keepUndo"]>>({ count: anything, within: anything }, { only: true });
const retention = members<Retention>({ ...KEPT, keepUndo, maxBytes: anything, maxAge: anything }, { only: true });

const call = optional(members<CallOptions>(CALL));
const inWorkspace = optional(members<WorkspaceCallOptions>(IN_WORKSPACE));
const init = optional(members<InitOptions>(INIT));
const adopt = optional(members<AdoptOptions>({ ...INIT, controlDirectory: place }));
const open = optional(members<OpenOptions>({ ...CALL, controlDirectory: place }));
const restore = members<RestoreOptions>(
  {
    ...IN_WORKSPACE,
    method,
    target: text,
    paths: some(path),
    keepPresent: flag,
    to: place,
    allow: texts,
    cause: object,
  },
  { needed: ["target"] },
);

function takes(...shapes: Shape[]): Call {
  return { takes: shapes };
}

export const LIBRARY_CALLS: Record<CallsOf<CairnLibrary>, Call> = {
  detectEngine: takes(place, call),
  validateEngine: takes(place, engine, call),
  init: takes(place, init),
  adopt: takes(place, adopt),
  open: takes(place, open),
  openOrInit: takes(place, init),
  openOrAdopt: takes(place, adopt),
  find: takes(place, call),
  initRepository: takes(
    members<InitRepositoryOptions>({ ...REPOSITORY, like: place }, { needed: ["repository", "password"] }),
  ),
  openRepository: takes(members<RepositoryOptions>(REPOSITORY, { needed: ["repository", "password"] })),
  verifyReceipt: takes(place, optional(members<VerifyReceiptOptions>({ ...CALL, key: text }))),
  inspect: takes(place, optional(members<InspectOptions>({ ...CALL, passwordFile: place }))),
  listWorkspaces: takes(call),
  relocate: takes(place, place, optional(members<RelocateOptions>({ ...CALL, controlDirectory: place, allow: texts }))),
  forget: takes(place, call),
};

export const CLIENT_CALLS: Record<CallsOf<Omit<Client, "close">>, Call> = {
  workspacePath: { takes: [optional(text)], how: "at once" },
  save: takes(
    optional(
      members<SaveOptions>({
        ...IN_WORKSPACE,
        message,
        tags: texts,
        cause: object,
        onDetached: oneOf("continue", "refuse"),
        skipUnchanged: flag,
        reread: flag,
        exclude: texts,
        ...UNWANTED,
        crossMounts: flag,
        allow: texts,
      }),
    ),
  ),
  restore: takes(restore),
  planRestore: takes(restore),
  undo: takes(optional(members<UndoOptions>({ ...IN_WORKSPACE, method }))),
  planUndo: takes(inWorkspace),
  restoreLatest: takes(optional(text), call),
  history: takes(
    optional(text),
    optional(number),
    optional(members<HistoryOptions>({ ...CALL, grep: text, tag: text, path })),
  ),
  latestSavePoint: takes(optional(text), call),
  hasSavePoints: takes(optional(text), call),
  resolve: takes(text, inWorkspace),
  status: takes(inWorkspace),
  diff: takes(text, optional(orNull(text)), optional(members<DiffOptions>({ ...IN_WORKSPACE, paths: some(path) }))),
  show: takes(text, optional(path), inWorkspace),
  walk: { takes: [text, optional(path), inWorkspace], how: "stream" },
  read: { takes: [orNull(text), path, inWorkspace], how: "stream" },
  verify: takes(text, optional(members<VerifyOptions & WorkspaceCallOptions>({ ...IN_WORKSPACE, deep: flag }))),
  verifyAll: takes(optional(members<VerifyOptions>({ ...CALL, deep: flag }))),
  fork: takes(
    text,
    place,
    optional(members<ForkOptions>({ ...IN_WORKSPACE, name: text, standalone: flag, allow: texts })),
  ),
  view: takes(text, inWorkspace),
  listViews: takes(call),
  closeView: takes(text, call),
  pin: takes(text, inWorkspace),
  unpin: takes(text, inWorkspace),
  tag: takes(text, members<{ add?: string[]; remove?: string[] }>({ add: texts, remove: texts }), inWorkspace),
  previewCleanup: takes(optional(members<CleanupOptions>({ ...IN_WORKSPACE, retention, only: some(text) }))),
  runCleanup: takes(text, call),
  createBackup: takes(
    object,
    optional(
      members<CreateBackupOptions>({
        ...IN_WORKSPACE,
        point: text,
        save: flag,
        message,
        exclude: texts,
        ...UNWANTED,
        reread: flag,
        crossMounts: flag,
        allow: texts,
        tags: texts,
        hostname: text,
        skipIfUnchanged: flag,
        dryRun: flag,
      }),
    ),
  ),
  restoreBackup: takes(
    object,
    text,
    optional(members<RestoreInPlaceOptions>({ ...IN_WORKSPACE, ...FROM_BACKUP, keepPresent: flag })),
  ),
  run: takes(
    texts,
    optional(
      members<RunOptions>({
        ...IN_WORKSPACE,
        message,
        tags: texts,
        cause: object,
        cwd: place,
        stdout: oneOf("inherit", "stderr"),
        onCommand: callback,
      }),
    ),
  ),
  doctor: takes(optional(members<DoctorOptions>({ ...IN_WORKSPACE, repair: flag, breakLocks: flag }))),
  store: takes(call),
  policy: takes(call),
  setPolicy: takes(
    members<PolicyEdit>(
      { retention: orNull(retention), quotaBytes: orNull(number), keptTrees: orNull(number) },
      { only: true },
    ),
    call,
  ),
  setEngine: takes(engine, optional(members<EngineOptions>({ ...CALL, allow: texts }))),
  seal: takes(inWorkspace),
  sealWhenIdle: {
    takes: [optional(members<SealWhenIdleOptions>({ idleMs: number, onWarning: callback }))],
    how: "at once",
  },
  shortIds: takes(texts, call),
  release: takes(optional(members<ReleaseOptions>({ ...IN_WORKSPACE, deletePoints: flag }))),
};

export const REPOSITORY_CALLS: Record<CallsOf<Omit<BackupRepository, "close">>, Call> = {
  list: takes(optional(members<ListBackupsOptions>({ ...CALL, ...CHOICE, latest: number }))),
  createFromStream: takes(stream, optional(members<StreamBackupOptions>(STREAM))),
  createFromCommand: takes(texts, optional(members<StreamBackupOptions & { cwd?: string }>({ ...STREAM, cwd: place }))),
  verify: takes(
    optional(
      members<VerifyBackupOptions>({
        ...CALL,
        snapshots: some(text),
        quick: flag,
        restoreCheck: flag,
        scratch: place,
        subset: members<{ part: number; of: number }>({ part: number, of: number }, { needed: ["part", "of"] }),
      }),
    ),
  ),
  restore: takes(text, place, optional(members<RestoreBackupOptions>({ ...CALL, ...FROM_BACKUP }))),
  forget: takes(
    members<ForgetBackupsOptions>({
      ...CALL,
      ...CHOICE,
      retention: members<BackupRetention>(KEPT, { only: true }),
      groupBy: list(oneOf("host", "paths", "tags")),
      prune: flag,
      dryRun: flag,
    }),
  ),
  tag: takes(members<TagBackupsOptions>({ ...CALL, ...CHOICE, add: texts, remove: texts, set: texts, dryRun: flag })),
  prune: takes(optional(members<PruneBackupsOptions>({ ...CALL, maxUnused: number, dryRun: flag }))),
  copyTo: takes(object, optional(members<CopyBackupsOptions>({ ...CALL, ...CHOICE, dryRun: flag }))),
  keys: takes(call),
  addKey: takes(password, call),
  addAgeKey: takes(
    members<AgeKeyOptions>({ ...CALL, recipients: texts, file: place }, { needed: ["recipients", "file"] }),
  ),
  removeKey: takes(text, call),
  changePassword: takes(password, call),
  repair: takes(
    members<RepairBackupsOptions>(
      { ...CALL, what: oneOf("index", "packs"), packs: some(text), plan: flag },
      { needed: ["what"] },
    ),
  ),
  repairSnapshots: takes(
    optional(members<RepairSnapshotsOptions>({ ...CALL, snapshots: some(text), forget: flag, plan: flag })),
  ),
  rewrite: takes(
    members<RewriteBackupsOptions>(
      { ...CALL, ...CHOICE, exclude: list(pattern), forget: flag, dryRun: flag },
      { needed: ["exclude"] },
    ),
  ),
  recover: takes(optional(members<RecoverBackupsOptions>({ ...CALL, hostname: text, dryRun: flag }))),
  stats: takes(optional(members<CallOptions & SnapshotChoice>({ ...CALL, ...CHOICE }))),
  find: takes(
    text,
    optional(
      members<FindInBackupsOptions>({
        ...CALL,
        ...CHOICE,
        object: oneOf("blob", "tree", "pack"),
        ignoreCase: flag,
        limit: number,
      }),
    ),
  ),
  diff: takes(text, text, optional(members<DiffBackupsOptions>({ ...CALL, fromSubfolder: path, toSubfolder: path }))),
  show: takes(text, optional(path), optional(members<ShowBackupOptions>({ ...CALL, ...FILTER }))),
  walk: {
    takes: [text, optional(path), optional(members<ShowBackupOptions>({ ...CALL, ...FILTER }))],
    how: "stream",
  },
  read: { takes: [text, path, optional(members<ShowBackupOptions>({ ...CALL, ...FILTER }))], how: "stream" },
  cat: takes(text, optional(text), call),
  unlock: takes(optional(members<CallOptions & { all?: boolean }>({ ...CALL, all: flag }))),
};
