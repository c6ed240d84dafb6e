/**
 * A library that remembers what was asked and answers with examples of the verbs' outputs: the tests of the command line
 * are about arguments, printing and exit statuses. Test only.
 */
import type { CairnError } from "../errors.ts";
import type { ControlId, SavePointId } from "../ids.ts";
import type { CairnLibrary, Client, EngineReason } from "../contract/index.ts";
import { CleanupPlan } from "../contract/looking.ts";
import { RestoreResult, SaveResult } from "../contract/points.ts";
import { BackupSnapshot, CreateBackupResult } from "../contract/snapshots.ts";
import type { Verb } from "../contract/verb.ts";
import { ListedEntry, SavePoint, WorkspaceRef } from "../contract/words.ts";
import { CLIENT_VERBS, LIBRARY_VERBS, REPOSITORY_VERBS } from "../verbs/index.ts";
import { exampleOf } from "./testing-example.ts";

export const ID_A = "1a2b3c4d000000000000000000000001" as SavePointId;
export const ID_B = "5f6e7d8c000000000000000000000002" as SavePointId;
export const ROOT = "/tmp/cairn-fake/project";

const SAMPLES = { SavePointId: ID_A };

export const REF = { ...exampleOf(WorkspaceRef), name: "main", path: ROOT };

export const REASONS: EngineReason[] = [
  { engine: "btrfs-snapshot", chosen: false, reason: "not btrfs" },
  { engine: "copy", chosen: true, reason: "works everywhere" },
];

export const POINT = {
  ...exampleOf(SavePoint, SAMPLES),
  workspace_name: "main",
  sequence: 2,
  message: "second",
  tags: ["release"],
  parent_id: ID_B,
  entries: 12,
  bytes: 34_567,
  bytes_stored: 1234,
  sealed: true,
};

export const SAVED: SaveResult = {
  ...exampleOf(SaveResult),
  ...POINT,
  made: true,
  changes: { added: 3, modified: 1, removed: 0 },
  duration_ms: 42,
};

export const RESTORED: RestoreResult = {
  ...exampleOf(RestoreResult, SAMPLES),
  restored_to: ID_A,
  undo_id: ID_B,
  duration_ms: 17,
  changes: { created: 1, updated: 2, deleted: 3, metadata: 4 },
};

const LISTED: ListedEntry = { ...exampleOf(ListedEntry), path: "a.txt", kind: "file", mode: 0o644 };

const NOT_CHANGED = { added: 0, modified: 0, removed: 0 };

const SNAPSHOT = {
  ...exampleOf(BackupSnapshot),
  snapshot_id: "d".repeat(64),
  hostname: "host",
  paths: [ROOT],
  tags: ["release"],
  files: 3,
};

export const CREATED: CreateBackupResult = {
  ...exampleOf(CreateBackupResult, SAMPLES),
  save_point_id: ID_A,
  snapshot: SNAPSHOT,
  added: { data_blobs: 1, tree_blobs: 2, bytes: 100, stored_bytes: 90, packs: 2 },
};

const LISTED_BELOW: ListedEntry[] = [
  { ...LISTED, path: "deep", kind: "directory", mode: 0o755 },
  { ...LISTED, path: "deep/b.txt" },
];

export const CLEANUP = {
  ...exampleOf(CleanupPlan),
  id: "c1",
  plan_id: "c1",
  protected_save_points: [ID_A],
  reclaimable_save_points: [ID_B],
  reasons: [
    { save_point_id: ID_A, keep: true, reasons: ["head"] },
    { save_point_id: ID_B, keep: false, reasons: ["no rule keeps it"] },
  ],
};

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

type Answers = Readonly<Record<string, unknown>>;

/** Members of the answers that differ from the example of the verb's output, or functions that answer. */
const ANSWERS: Answers = {
  find: ROOT,
  listWorkspaces: [{ ...REF, present: true, points: 2, store_bytes: 99_999, last_save_at: null }],
  workspacePath: ROOT,
  save: SAVED,
  bisect: { first_bad: POINT, last_good: ID_B },
  restore: RESTORED,
  undo: RESTORED,
  redo: RESTORED,
  show: { save_point: POINT, path: "", entries: [LISTED] },
  walk: () => LISTED_BELOW,
  read: (target: string | null) => [Buffer.from(target === null ? "new\ntext\n" : "old\ntext\n")],
  run: { command: ["true"], before: POINT, after: POINT, exit_code: 0, duration_ms: 5, changes: NOT_CHANGED },
  resolve: POINT,
  latestSavePoint: POINT,
  previewCleanup: CLEANUP,
  diff: {
    from: ID_A,
    entries: [
      { change: "modified", kind: "file", path: "a.txt", aspects: ["content"], size_before: 8, size_after: 8 },
      { change: "added", kind: "file", path: "bad\u001b[31m", path_b64: "YmFkG1szMW3/", aspects: [], size_after: 3 },
    ],
  },
  history: {
    save_points: [
      POINT,
      { ...POINT, save_point_id: ID_B, sequence: 1, message: "first\nline two", tags: [], pinned: true },
    ],
    head: ID_A,
    latest: ID_A,
    damaged: [{ save_point_id: null, detail: "descriptor cut short", hint: "run doctor" }],
  },
  status: {
    workspace: REF,
    changes: { added: 1, modified: 0, removed: 2 },
    head: ID_A,
    latest: ID_A,
    engine_reasons: REASONS,
    last_save_at: POINT.created_at,
  },
  createBackup: CREATED,
  doctor: { engine_reasons: REASONS, findings: [{ kind: "overlay", severity: "warning", detail: "on overlay" }] },
  inspectMachine: { state: "running", pid: 7, console_log: "/tmp/cairn-fake/m/live/console.log" },
};

/** The same for a repository. */
const REPOSITORY_ANSWERS: Answers = {
  list: { snapshots: [SNAPSHOT] },
  show: { snapshot: SNAPSHOT, path: "" },
  walk: ANSWERS["walk"],
};

/** Answers by name; an override may answer differently, throw or wait. */
export function fakeLibrary(overrides: Overrides = {}, created = false): FakeLibrary {
  const fake: FakeLibrary = { library: undefined as unknown as CairnLibrary, asked: [], closed: 0 };
  const close = async (): Promise<void> => undefined;
  const samples: Record<string, unknown> = { ...SAMPLES };
  const answering = (verbs: Readonly<Record<string, Verb>>, answers: Answers = ANSWERS): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(verbs).map(([method, { how, output }]) => {
        const answer = (args: unknown[]): unknown => {
          fake.asked.push({ method, args });
          const own = overrides[method] ?? answers[method];
          return typeof own === "function"
            ? (own as (...given: unknown[]) => unknown)(...args)
            : merged(exampleOf(output, samples), own);
        };
        if (how === "at once") return [method, (...args: unknown[]) => answer(args)];
        if (how === "promise") return [method, async (...args: unknown[]) => answer(args)];
        return [
          method,
          async function* (...args: unknown[]) {
            yield* answer(args) as Iterable<unknown>;
          },
        ];
      }),
    );
  samples["Client"] = {
    ...answering(CLIENT_VERBS),
    repoRoot: ROOT,
    repoId: "e".repeat(32) as ControlId,
    engineType: "copy",
    controlDirectory: REF.control_directory,
    workspace: REF,
    created,
    engineReasons: REASONS,
    conversion: null,
    followedFrom: null,
    shortIds: async (ids: readonly string[]) => ids.map((id) => id.slice(0, 8)),
    [Symbol.asyncDispose]: close,
    close: async () => {
      fake.closed++;
      fake.closing?.();
    },
  } as unknown as Client;
  samples["BackupRepository"] = {
    ...answering(REPOSITORY_VERBS, REPOSITORY_ANSWERS),
    info: { location: "/tmp/cairn-fake/x", repository_id: "c".repeat(64), version: 2 },
    close,
  };
  fake.library = answering(LIBRARY_VERBS) as unknown as CairnLibrary;
  return fake;
}

function merged(example: unknown, own: unknown): unknown {
  if (own === undefined) return example;
  const isPart = typeof own === "object" && !Array.isArray(own) && typeof example === "object";
  return isPart ? { ...example, ...own } : own;
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
