import { join } from "node:path";
import type { CairnLibrary, Client, KeptRepository, WorkspaceInfo } from "../../../contract/index.ts";
import { type CairnError, reworded, toCairnError } from "../../../errors.ts";
import { durableMkdir } from "../../../fs/durable.ts";
import { acquireLock } from "../../../fs/lock.ts";
import { unprovenBy } from "../../../formats/records/receipt.ts";
import { userStateDirectory } from "../../../fs/users.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY, hasFailed } from "../../envelope.ts";
import type { Input } from "../../input.ts";
import { plural, printable } from "../../render/format.ts";
import { ownSnapshots } from "./forget.ts";
import { namedOptions, whileOpeningNamed } from "./repository.ts";

/**
 * Milliseconds since the last backup after which the next is due: an hour less than a day, so that an hourly timer does
 * not back up an hour later each day.
 */
const DUE_AFTER_MS = 23 * 3_600_000;

/** Result for one folder, with the keys of `--json`. */
interface Done {
  path: string;
  save_point_id: string | null;
  snapshot_id: string | null;
  removed: string[];
  error: { code: string; message: string; hint: string | null } | null;
}

export const command: CommandDefinition = {
  name: "backup due",
  examples: [
    { line: "cairn backup due", text: "for a timer or cron; afterwards snapshots are removed by each folder's rules" },
  ],
  async run(context, input) {
    const library = await context.library();
    const folders: Done[] = [];
    const errors: CairnError[] = [];
    let isPartly = false;
    for (const info of await library.listWorkspaces(context.callOptions())) {
      const done: Done = { path: info.path, save_point_id: null, snapshot_id: null, removed: [], error: null };
      try {
        isPartly = (await serve(context, input, { library, info, done })) || isPartly;
      } catch (thrown) {
        const error = toCairnError(thrown);
        if (error.code === "interrupted") throw error;
        const { code, message, hint } = error;
        done.error = { code, message, hint: hint ?? null };
        errors.push(reworded(error, { message: `${info.path}: ${message}` }));
      }
      folders.push(done);
    }
    const outcome: Outcome = {
      data: { folders },
      exitStatus: isPartly ? EXIT_PARTLY : 0,
      text: () => folders.map(render).join("\n") || "you have no workspace yet; `cairn save DIR` makes one",
    };
    const [first] = errors;
    if (first === undefined) return outcome;
    const error = reworded(first, { message: errors.map(({ message }) => message).join("; ") });
    return { ...outcome, exitStatus: error.exitStatus, error };
  },
};

interface Folder {
  library: CairnLibrary;
  info: WorkspaceInfo;
  /** Gets the ids as soon as they are known. */
  done: Done;
}

/**
 * Saves a folder, and backs it up if that is due. Returns true if the point or the snapshot lacks a part of the folder.
 */
async function serve(context: Context, input: Input, { library, info, done }: Folder): Promise<boolean> {
  const options = context.callOptions();
  await using client = await library.open(info.path, context.openOptions()).catch((error: unknown) => {
    if (info.present) throw error;
    return null;
  });
  const kept = (await client?.backupRepository(options)) ?? null;
  // A deleted folder is no failure, unless its backups stop.
  if (client === null || (!info.present && kept === null)) {
    context.note(`${info.path} is not there, so it was not saved`);
    return false;
  }
  // A backup saves the folder itself, so that hooks run once. Its failure calls the folder's alarm.
  const before = await client.latestSavePoint(undefined, options);
  let backup: boolean | null = null;
  let failed: CairnError | null = null;
  if (kept !== null)
    backup = await backUpIfDue(context, input, { client, info, done }).catch((error: unknown) => {
      failed = toCairnError(error);
      return null;
    });
  const latest = await client.latestSavePoint(undefined, options);
  const isMade = latest !== null && latest.save_point_id !== before?.save_point_id;
  if (isMade) done.save_point_id = latest.save_point_id;
  let isPartly = backup === true;
  if (backup === null && !isMade) {
    const saved = await client
      .save({ ...options, skipUnchanged: true, cause: { kind: "schedule" } })
      .catch((error: unknown) => {
        failed ??= toCairnError(error);
        return null;
      });
    if (saved?.made === true) done.save_point_id = saved.save_point_id;
    isPartly = saved !== null && ((!saved.complete && saved.left_out.length > 0) || hasFailed(saved.hooks));
  }
  if (failed !== null) throw failed as CairnError;
  return isPartly;
}

/**
 * Backs a folder up if that is due. While another process does so, this one leaves the folder to it. Returns true if
 * the snapshot lacks a part of the folder, null if no backup was made.
 */
async function backUpIfDue(
  context: Context,
  input: Input,
  { client, info, done }: { client: Client; info: WorkspaceInfo; done: Done },
): Promise<boolean | null> {
  const folder = join(userStateDirectory(), "due");
  durableMkdir(folder);
  const purpose = { purpose: "backup due", timeoutMs: 0 };
  using turn = await acquireLock(join(folder, `${info.id}.lock`), purpose).catch((error: unknown) => {
    if (toCairnError(error).code === "busy") return null;
    throw error;
  });
  if (turn === null) {
    context.note(`another process backs up ${info.path}`);
    return null;
  }
  // Read under the lock: a process that held it has recorded its backup.
  const kept = await client.backupRepository(context.callOptions());
  return kept !== null && isDue(kept) ? await backUp(context, input, { client, kept, done }) : null;
}

/** True also if there was no good backup yet, and after the clock was set back. */
function isDue({ good_at: at }: KeptRepository): boolean {
  const age = Date.now() - Date.parse(at ?? "");
  return !(age >= 0 && age < DUE_AFTER_MS);
}

async function backUp(
  context: Context,
  input: Input,
  { client, kept, done }: { client: Client; kept: KeptRepository; done: Done },
): Promise<boolean> {
  const folder = client.workspacePath();
  return whileOpeningNamed(context, namedOptions(context, input, { kept: { ...kept, folder } }), async (opening) => {
    const options = context.callOptions();
    const own = ownSnapshots(context, folder);
    const made = await client.createBackup(opening, {
      ...options,
      kept: true,
      cause: { kind: "schedule" },
      skipIfUnchanged: true,
      hostname: own.hosts[0]!,
    });
    done.snapshot_id = made.snapshot?.snapshot_id ?? null;
    if (kept.retention !== null) {
      const repository = await opening;
      const { removed } = await repository.forget({ ...options, ...own, retention: kept.retention, prune: true });
      done.removed = removed;
    }
    return made.incomplete !== null || hasFailed(made.hooks) || unprovenBy(made).length > 0;
  });
}

function render({ path, save_point_id: point, snapshot_id: snapshot, removed, error }: Done): string {
  const words = [
    point === null ? (error === null ? "nothing new to save" : null) : `saved as ${point.slice(0, 8)}`,
    snapshot === null ? null : `backed up as ${snapshot.slice(0, 8)}`,
    removed.length === 0 ? null : `${plural(removed.length, "snapshot")} removed`,
    error === null ? null : `failed: ${printable(error.message)}`,
  ];
  return `${printable(path)}: ${words.filter((each) => each !== null).join(", ")}`;
}
