import { hostname } from "node:os";
import type { BackupRepository, KeptPlace, RepositoryOptions, VerifyBackupResult } from "../contract/repositories.ts";
import type { Client } from "../contract/index.ts";
import type { SaveOptions, SaveResult } from "../contract/points.ts";
import type { HookRun } from "../contract/words.ts";
import type { CreateBackupResult } from "../contract/snapshots.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { type RecordedPath, rawPath } from "../formats/records/record.ts";
import { unprovenBy } from "../formats/records/receipt.ts";
import type { ScheduledRun } from "../formats/records/schedule.ts";
import { plural } from "../formats/sizes.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { findWorkspace } from "../workspace/place/find-workspace.ts";
import { duringHooks } from "./hooks.ts";
import { failedToOpen, requireKept } from "./kept-repository.ts";
import { type BackupRow, unreadIn } from "./kept-runs.ts";
import { readPassword } from "./password.ts";
import { failureOf, readSchedule, recordRun, type Task, type TaskCall } from "./schedule.ts";
import { partCount, partsToRead, partTimes } from "./read-parts.ts";

/** Milliseconds between two saves, unless a person set others. */
const SAVE_MS = 3_600_000;

/** A workspace that is saved and backed up. */
export type Folder = RecordedPath & { id: string };

/** Functions that scheduled work calls. */
export interface WorkHands {
  openRepository: (options: RepositoryOptions) => Promise<BackupRepository>;
  client: (folder: Folder) => Promise<Client>;
  /** Saves the folder in its turn if it changed. */
  save: (folder: Folder, signal: AbortSignal, how: Pick<SaveOptions, "hooks" | "onProgress">) => Promise<SaveResult>;
  warn: (message: string, folder: Folder) => void;
  now: () => number;
}

/** Tasks of backups. `served` gives the workspaces of a row. */
export function backupTasks(
  rows: readonly BackupRow[],
  served: (row: BackupRow) => readonly Folder[],
  hands: WorkHands,
): Task[] {
  // A row for one folder takes precedence over a row for all.
  const inOrder = rows.toSorted((a, b) => Number(a.workspace === null) - Number(b.workspace === null));
  return inOrder.flatMap((row) => {
    const { repository } = row;
    const tasks: Task[] = [];
    const folders = served(row);
    for (const each of folders) {
      const name = { repository, workspace: each.id };
      const run: Task["run"] = async (call) => backUp(row, each, { ...call, hands });
      tasks.push({ kind: "backup", ...name, everyMs: row.every_ms, isSoon: true, run });
      if (row.restore_check_every_ms === null) continue;
      const check = async (call: TaskCall): Promise<void> => checkRestore(row, each, { ...call, hands });
      tasks.push({ kind: "restore-check", ...name, everyMs: row.restore_check_every_ms, run: check });
    }
    const ofRepository = { repository, workspace: null };
    if (row.verify_every_ms !== null)
      tasks.push({
        kind: "verify",
        ...ofRepository,
        everyMs: row.verify_every_ms,
        run: async (call) => verifyParts(row, { ...call, hands }),
      });
    // The rules of `backup use` are those of one folder.
    const isOfFolder = row.on_failure !== undefined;
    if (row.prune_every_ms !== null)
      tasks.push({
        kind: "prune",
        repository,
        workspace: isOfFolder ? folders[0]!.id : null,
        everyMs: row.prune_every_ms,
        isSoon: isOfFolder,
        run: async (call) => prune(row, folders, { ...call, hands }),
      });
    return tasks;
  });
}

interface Call extends TaskCall {
  hands: WorkHands;
}

/** The password of a row. Throws `usage` if there is none that nobody has to enter. */
export async function passwordOf({ repository, ...row }: KeptPlace, signal?: AbortSignal): Promise<Uint8Array> {
  const { bytes } = await readPassword({
    file: row.password_file ?? undefined,
    command: row.password_command ?? undefined,
    identity: row.age_identity ?? undefined,
    variable: "PASSWORD",
    env: process.env,
    cwd: process.cwd(),
    question: `password of ${repository.replace(/\/\/[^/@]*@/, "//")}`,
    ...(signal && { signal }),
  });
  return bytes;
}

async function withRepository<T>(
  row: BackupRow,
  { hands, signal, onProgress }: Pick<Call, "hands" | "signal" | "onProgress">,
  work: (open: BackupRepository) => Promise<T>,
): Promise<T> {
  const { repository } = row;
  const password = async (): Promise<Uint8Array> => passwordOf(row, signal);
  const options = { repository, password, signal, onProgress };
  await using open = await hands.openRepository(options).catch(failedToOpen);
  return await work(open);
}

/** The name of this machine in snapshots. */
export function host(): string {
  const { CAIRN_HOST: own = "", RESTIC_HOST: restic = "" } = process.env;
  return own || restic || hostname();
}

/** Saves a folder, and records how that ended. A record that cannot be written is a warning. */
export async function saveFolder(
  folder: Folder,
  { hands, signal, made, onProgress }: Omit<Call, "before">,
  how: Pick<SaveOptions, "hooks"> = {},
): Promise<SaveResult> {
  // Changes after this moment may be missing.
  const at = new Date(hands.now()).toISOString();
  const record = async (found: Parameters<typeof recordRun>[1]): Promise<void> => {
    const name = { kind: "save", workspace: folder.id, repository: null };
    await recordRun(name, found, at).catch((error: unknown) =>
      hands.warn(`the time of this save was not recorded: ${toCairnError(error).message}`, folder),
    );
  };
  let saved: SaveResult;
  try {
    saved = await hands.save(folder, signal, { ...how, ...(onProgress && { onProgress }) });
  } catch (error) {
    if (!signal.aborted) await record(failureOf(error));
    throw error;
  }
  const isPartly = (!saved.complete && saved.left_out.length > 0) || hasFailed(saved.hooks);
  made?.({ save_point_id: saved.made ? saved.save_point_id : undefined, isPartly });
  await record({ error: null });
  return saved;
}

/** Returns the task of saves for a folder that nobody saves by other rules. */
export function saveTask(folder: Folder, hands: WorkHands): Task {
  const { id } = folder;
  const everyMs = readSchedule({ workspace: id, repository: null }).every?.["save"] ?? SAVE_MS;
  const run: Task["run"] = async (call) => void (await saveFolder(folder, { ...call, hands }));
  return { kind: "save", workspace: id, repository: null, everyMs, isSoon: true, run };
}

/** Backs up the folder as it is now, between its hooks. Makes no snapshot if the newest one has the same content. */
async function backUp(row: BackupRow, folder: Folder, call: Call): Promise<Partial<ScheduledRun>> {
  const { hands, signal, onProgress } = call;
  const found = findWorkspace(Buffer.from(rawPath(folder)));
  const work = async (): Promise<CreateBackupResult> => {
    const saved = await saveFolder(folder, call);
    return withRepository(row, call, async (open) => {
      // A row of the daemon's configuration has no alarm of its own.
      if (found !== null && row.on_failure !== undefined) await requireKept(found, open.info);
      const client = await hands.client(folder);
      const how = { probe: [...row.probe], skipIfUnchanged: true, hostname: host(), signal, onProgress };
      const result = await client.createBackup(open, { point: saved.save_point_id, ...how });
      return { ...result, left_out: [...result.left_out, ...saved.left_out] };
    });
  };
  const onWarning = (warning: string): void => hands.warn(warning, folder);
  const result = await (found === null ? work() : duringHooks(found, "backup", { signal, onWarning }, work));
  const isPartly = result.incomplete !== null || hasFailed(result.hooks);
  call.made?.({ snapshot_id: result.snapshot?.snapshot_id, isPartly });
  requireProven("the folder is backed up", unprovenBy(result));
  return unreadIn(result);
}

function hasFailed(runs: readonly HookRun[] = []): boolean {
  return runs.some(({ exit_code: code }) => code !== 0);
}

/** Restores the newest snapshot of a workspace to a temporary place, and compares it with the recorded digest. Throws `damaged`. */
async function checkRestore(row: BackupRow, { path }: Folder, call: Call): Promise<void> {
  const { signal, onProgress } = call;
  await withRepository(row, call, async (open) => {
    const { snapshots } = await open.list({ paths: [path], hosts: [host()], signal });
    const newest = snapshots.at(-1);
    if (newest === undefined)
      throw new CairnError("not_found", `${open.info.location} has no backup of ${printablePath(path)} yet`);
    const checked = { snapshots: [newest.snapshot_id], quick: true, restoreCheck: true, probe: [...row.probe] };
    const result = await open.verify({ ...checked, signal, onProgress });
    const damage = damageIn(result);
    if (damage !== null) throw new CairnError("damaged", damage);
    requireProven("the snapshot can be restored", result.restored.flatMap(unprovenBy));
  });
}

/** Throws `conflict` with the work that was done, and the reasons why it proves less than it must. */
function requireProven(done: string, why: readonly string[]): void {
  if (why.length > 0) throw new CairnError("conflict", `${done}, but ${printablePath(why.join("; "))}`);
}

/**
 * Reads the parts of the packs that are due. Parts that were read count even if a later one fails. Damage is an error
 * that names the first problem.
 */
async function verifyParts(row: BackupRow, call: Call): Promise<Partial<ScheduledRun>> {
  const { hands, signal, before, onProgress } = call;
  const { verify_every_ms: every, read_all_within_ms: withinMs } = row;
  const everyMs = every!;
  const of = partCount(withinMs, everyMs);
  const times = partTimes(before.parts_read_at, of, before.since);
  const parts = partsToRead(times, { now: hands.now(), withinMs, everyMs });
  const whole = parts.length === of;
  let damage: string | null = null;
  await withRepository(row, call, async (open) => {
    for (const [i, part] of (whole ? [0] : parts).entries()) {
      const begun = hands.now();
      try {
        damage ??= damageIn(
          await open.verify({ ...(whole ? {} : { subset: { part: part + 1, of } }), signal, onProgress }),
        );
      } catch (error) {
        if (i === 0) throw error;
        damage ??= toCairnError(error).message;
        break;
      }
      if (whole) times.fill(begun);
      else times[part] = begun;
    }
  });
  return {
    error: damage,
    ...(damage === null ? {} : { code: "damaged" }),
    parts_read_at: times.map((at) => new Date(at).toISOString()),
  };
}

/** Null if nothing is damaged. */
function damageIn({ problems, location }: VerifyBackupResult): string | null {
  const damage = problems.filter(({ severity }) => severity === "damage");
  const [first] = damage;
  if (first === undefined) return null;
  return `${plural(damage.length, "problem")} in ${location}: ${first.kind} ${first.object.slice(0, 12)}: ${first.detail}`;
}

/**
 * Forgets snapshots of the row's workspaces by its rules, and frees unneeded blobs, or marks them for a second look.
 * Snapshots of other folders stay.
 */
async function prune(row: BackupRow, folders: readonly Folder[], call: Call): Promise<Partial<ScheduledRun>> {
  const { before, signal, made, onProgress } = call;
  return withRepository(row, call, async (open) => {
    if (row.keep !== null)
      for (const { path } of folders) {
        const { removed } = await open.forget({ paths: [path], hosts: [host()], retention: row.keep, signal });
        made?.({ removed });
      }
    const { free_from: again } = await open.prune({ signal, onProgress });
    // A second look is not followed by a third one, so that each run does not bring the next.
    return again === null || before.again_at !== undefined ? {} : { again_at: again };
  });
}
