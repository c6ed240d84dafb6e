import { hostname } from "node:os";
import { isAgeFile } from "../../crypto/age.ts";
import type {
  BackupRepository,
  Client,
  CreateBackupResult,
  RepositoryOptions,
  SaveOptions,
  SaveResult,
  VerifyBackupResult,
} from "../../contract/index.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { passwordOfFile } from "../../formats/restic/password-bytes.ts";
import type { ScheduledRun, ServedWorkspace } from "../../formats/records/daemon-state.ts";
import { unprovenBy } from "../../formats/records/receipt.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { plural } from "../../formats/sizes.ts";
import type { BackupRow } from "../config.ts";
import { partCount, partsToRead, partTimes } from "./read-parts.ts";
import type { Log } from "../log/log.ts";
import { folderOf } from "../state/kept-state.ts";
import { duringHooks } from "../../operations/kept/hooks.ts";
import { findWorkspace } from "../../workspace/place/find-workspace.ts";
import type { Task } from "./scheduler.ts";

/** Functions of the daemon that a scheduled backup calls. */
export interface BackupHands {
  openRepository: (options: RepositoryOptions) => Promise<BackupRepository>;
  client: (served: ServedWorkspace) => Promise<Client>;
  /** Saves the folder in its turn if it changed. */
  save: (served: ServedWorkspace, signal: AbortSignal, how: Pick<SaveOptions, "hooks">) => Promise<SaveResult>;
  /** A line for the operator's log. */
  log: Log;
  now: () => number;
}

const MAX_PASSWORD_BYTES = 1 << 20;

/** Tasks of the configured backups. `served` gives the workspaces of a row. */
export function backupTasks(
  rows: readonly BackupRow[],
  served: (row: BackupRow) => readonly ServedWorkspace[],
  hands: BackupHands,
): Task[] {
  // A row for one folder takes precedence over a row for all.
  const inOrder = rows.toSorted((a, b) => Number(a.workspace === null) - Number(b.workspace === null));
  return inOrder.flatMap((row) => {
    const { repository } = row;
    const tasks: Task[] = [];
    for (const each of served(row)) {
      const name = { repository, workspace: each.id };
      const run = async (signal: AbortSignal): Promise<void> => backUp(row, each, { hands, signal });
      tasks.push({ kind: "backup", ...name, everyMs: row.every_ms, isSoon: true, run });
      if (row.restore_check_every_ms === null) continue;
      const check = async (signal: AbortSignal): Promise<void> => checkRestore(row, each, { hands, signal });
      tasks.push({ kind: "restore-check", ...name, everyMs: row.restore_check_every_ms, run: check });
    }
    const ofRepository = { repository, workspace: null };
    if (row.verify_every_ms !== null)
      tasks.push({
        kind: "verify",
        ...ofRepository,
        everyMs: row.verify_every_ms,
        run: async (signal, before) => verifyParts(row, before, { hands, signal }),
      });
    if (row.prune_every_ms !== null)
      tasks.push({
        kind: "prune",
        ...ofRepository,
        everyMs: row.prune_every_ms,
        run: async (signal, before) => prune(row, served(row), { before, hands, signal }),
      });
    return tasks;
  });
}

interface Call {
  hands: BackupHands;
  signal: AbortSignal;
}

/** The password in a row's file. Throws `usage` if the file is empty or encrypted by age. */
export function passwordIn(file: string): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = readRegular(file, { named: true, limit: MAX_PASSWORD_BYTES });
  } catch (error) {
    throw toCairnError(error, `reading the password file ${printablePath(file)}`);
  }
  if (isAgeFile(bytes))
    throw new CairnError("usage", `the password file ${printablePath(file)} is encrypted by age`, {
      hint: "name a file with the plain password and mode 0600, since nobody can enter a password for a daemon",
    });
  const password = passwordOfFile(bytes);
  if (password.length > 0) return password;
  throw new CairnError("usage", `the password file ${printablePath(file)} is empty`);
}

async function withRepository<T>(
  { repository, password_file: file }: BackupRow,
  { hands, signal }: Call,
  work: (open: BackupRepository) => Promise<T>,
): Promise<T> {
  const open = await hands.openRepository({ repository, password: async () => passwordIn(file), signal });
  try {
    return await work(open);
  } finally {
    await open.close();
  }
}

/** Backs up the folder as it is now, between its hooks. Makes no snapshot if the newest one has the same content. */
async function backUp(row: BackupRow, served: ServedWorkspace, call: Call): Promise<void> {
  const { hands, signal } = call;
  const work = async (): Promise<CreateBackupResult> => {
    const { save_point_id: point } = await hands.save(served, signal, {});
    return withRepository(row, call, async (open) => {
      const client = await hands.client(served);
      return client.createBackup(open, { point, probe: row.probe, skipIfUnchanged: true, signal });
    });
  };
  const found = findWorkspace(folderOf(served));
  const onWarning = (warning: string): void =>
    hands.log(`${printablePath(folderOf(served))}: ${warning}`, { priority: "warning", workspace: folderOf(served) });
  const result = await (found === null ? work() : duringHooks(found, "backup", { signal, onWarning }, work));
  requireProven("the folder is backed up", unprovenBy(result));
}

/** Restores the newest snapshot of a workspace to a temporary place, and compares it with the recorded digest. Throws `damaged`. */
async function checkRestore(row: BackupRow, { path }: ServedWorkspace, call: Call): Promise<void> {
  const { signal } = call;
  await withRepository(row, call, async (open) => {
    const { snapshots } = await open.list({ paths: [path], hosts: [hostname()], signal });
    const newest = snapshots.at(-1);
    if (newest === undefined)
      throw new CairnError("not_found", `${open.info.location} has no backup of ${printablePath(path)} yet`);
    const checked = { snapshots: [newest.snapshot_id], quick: true, restoreCheck: true, probe: row.probe };
    const result = await open.verify({ ...checked, signal });
    const damage = damageIn(result);
    if (damage !== null) throw new CairnError("damaged", damage);
    requireProven("the snapshot can be restored", result.restored.flatMap(unprovenBy));
  });
}

/** Throws `conflict`, with `done` and the reasons, if there are reasons. */
function requireProven(done: string, why: readonly string[]): void {
  if (why.length > 0) throw new CairnError("conflict", `${done}, but ${printablePath(why.join("; "))}`);
}

/**
 * Reads the parts of the packs that are due. Parts that were read count even if a later one fails. Damage is an error
 * that names the first problem.
 */
async function verifyParts(row: BackupRow, before: ScheduledRun, call: Call): Promise<Partial<ScheduledRun>> {
  const { hands, signal } = call;
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
        damage ??= damageIn(await open.verify({ ...(whole ? {} : { subset: { part: part + 1, of } }), signal }));
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
async function prune(
  row: BackupRow,
  served: readonly ServedWorkspace[],
  call: Call & { before: ScheduledRun },
): Promise<Partial<ScheduledRun>> {
  const { signal, before } = call;
  return withRepository(row, call, async (open) => {
    if (row.keep !== null)
      for (const { path } of served)
        await open.forget({ paths: [path], hosts: [hostname()], retention: row.keep, signal });
    const { free_from: again } = await open.prune({ signal });
    // A second look is not followed by a third one, so that each run does not bring the next.
    return again === null || before.again_at !== undefined ? {} : { again_at: again };
  });
}
