import { AsyncLocalStorage } from "node:async_hooks";
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Hooks, HooksEdit } from "../../contract/care.ts";
import type { HookRun, WorkspaceCallOptions } from "../../contract/words.ts";
import { advice, CairnError, call, either, option, toCairnError, word } from "../../errors.ts";
import {
  decodeHooks,
  DEFAULT_SECONDS,
  encodeHooks,
  HOOK_NAMES,
  type HookName,
  type HooksFile,
  MAX_SECONDS,
} from "../../formats/records/kept-repository.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { durableMkdir, durableRemove, durableWrite, readRecord } from "../../fs/durable.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import { displayPath, printablePath } from "../../fs/paths/safe-path.ts";
import { runShell } from "../../fs/shell-command.ts";
import { userStateDirectory } from "../../fs/users.ts";
import { isFolderThere } from "../../workspace/place/control-directory.ts";
import { stateOfOtherDaemon } from "../../workspace/place/daemon-marks.ts";
import type { FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import { whyUnmounted } from "../../workspace/place/mounted.ts";
import { ownerBesidesUs, requireOwnHome } from "../../workspace/place/owners.ts";
import { Dumps } from "../../workspace/save/dumps.ts";
import type { SaveInput } from "../../workspace/save/record-point.ts";
import type { SavedOrHead } from "../../workspace/save/save.ts";

/**
 * The commands before and after saves and backups. They lie in the state directory of the user who runs them, never in
 * the folder or its control directory: a folder that was copied or cloned here brings no commands along.
 */

type Found = Pick<FoundWorkspace, "folder" | "workspace">;

const MOST_OUTPUT_BYTES = 4096;

/** The runs of one call, and the files that the commands wrote. */
export interface Hooked {
  readonly runs: HookRun[];
  dumps: Dumps | null;
}

/** A call between its hooks. */
interface UnderWay {
  readonly hooked: Hooked;
  readonly folder: Buffer;
  isOver: boolean;
}

/** The hooks of a backup that is under way, which its save joins, through all calls in between. */
const underWay = new AsyncLocalStorage<UnderWay>();

/**
 * Variable of a hook's command: the ids of the workspaces in whose hooks it runs. Their hooks would run without end if
 * the command saves or backs up one of them.
 */
const RUNS_IN = "CAIRN_HOOKS_OF";

/** Returns the workspace's hooks; null if there are none. Throws `refused` for a record of another user or folder. */
export function hooks({ found }: { found: Found }): Hooks | null {
  const file = hooksOf(found);
  if (file === null || isEmpty(file)) return null;
  const { seconds } = file;
  const commands = HOOK_NAMES.map((name) => [name, file[name] ?? null]);
  return { ...(Object.fromEntries(commands) as Omit<Hooks, "seconds">), seconds };
}

/** Changes the given hooks of a workspace; null: removes all. Throws `usage`. */
export function setHooks({ found }: { found: Found }, edit: HooksEdit | null): Hooks | null {
  const { seconds, beforeSave, afterSave, beforeBackup, afterBackup } = edit ?? {};
  if (seconds !== undefined && !(seconds >= 1 && seconds <= MAX_SECONDS))
    throw new CairnError("usage", `the time limit of hooks must be from 1 to ${MAX_SECONDS} seconds`);
  const given = {
    before_save: beforeSave,
    after_save: afterSave,
    before_backup: beforeBackup,
    after_backup: afterBackup,
  };
  const file: HooksFile = { seconds: DEFAULT_SECONDS, ...formerOf(found, edit), ...recordPath(found.folder) };
  if (seconds !== undefined) file.seconds = seconds;
  for (const [name, command] of Object.entries(given) as [HookName, string | null | undefined][])
    if (command === null || command === "") delete file[name];
    else if (command !== undefined) file[name] = command;
  const place = placeOf(found, userStateDirectory());
  requireOwnHome(userStateDirectory());
  // Without a record of its own, the hooks of a workspace with the same id are refused here.
  if (isEmpty(file) && placesOfOthers(found, userStateDirectory()).length === 0) {
    durableRemove(place);
    return null;
  }
  durableMkdir(join(userStateDirectory(), "hooks"));
  durableWrite(place, encodeHooks(file), { mode: 0o600 });
  return hooks({ found });
}

function isEmpty(file: HooksFile): boolean {
  return HOOK_NAMES.every((name) => file[name] === undefined);
}

/** Commands that were set for another folder are not taken over. */
function formerOf(found: Found, edit: HooksEdit | null): Partial<HooksFile> {
  if (edit === null) return {};
  const former = readHooks(found);
  return former !== null && found.folder.equals(rawPath(former)) ? former : {};
}

/**
 * Runs `work` between the hooks of its kind. If the command before fails, throws `refused` without `work`. The command
 * behind runs whenever the one before was started; if it fails, the result says so.
 */
export async function duringHooks<T extends object>(
  found: FoundWorkspace,
  kind: "save" | "backup",
  options: Pick<WorkspaceCallOptions, "signal" | "onWarning"> & { hooks?: boolean | undefined },
  work: (hooked: Hooked) => Promise<T>,
): Promise<T & { hooks?: HookRun[] }> {
  const outer = underWay.getStore();
  // A callback of a backup may save another folder, and a timer that the backup started may outlive it.
  const isJoined = outer?.isOver === false && outer.folder.equals(found.folder);
  const isInside = process.env[RUNS_IN]?.split(" ").includes(found.workspace.id) === true;
  const file = options.hooks === false || isInside || !isReady(found) ? null : hooksOf(found);
  const hooked: Hooked = isJoined ? outer.hooked : { runs: [], dumps: null };
  const isMaker = hooked.dumps === null;
  const run = async (when: "before" | "after", point = ""): Promise<HookRun | null> => {
    const command = file?.[`${when}_${kind}`];
    if (command === undefined) return null;
    const env: Record<string, string> = {
      CAIRN_FOLDER: found.folder.toString(),
      CAIRN_SAVE_POINT: point,
      [RUNS_IN]: `${process.env[RUNS_IN] ?? ""} ${found.workspace.id}`.trim(),
    };
    if (when === "before") env["CAIRN_DUMPS"] = (hooked.dumps ??= Dumps.make(found.folder)).place.toString();
    const signal = when === "before" ? options.signal : undefined;
    const limits = { timeoutMs: file!.seconds * 1000, mostBytes: MOST_OUTPUT_BYTES };
    const { exitCode, durationMs, output } = await runShell(command, { env, signal, ...limits }).catch(
      (error: unknown) => {
        if (when === "before") throw error;
        // The save or backup is made, so its result must reach the caller.
        return { exitCode: null, durationMs: 0, output: Buffer.from(toCairnError(error).message) };
      },
    );
    const ran = {
      hook: `${when}_${kind}` as const,
      exit_code: exitCode,
      duration_ms: durationMs,
      output: Buffer.from(output).toString(),
    };
    hooked.runs.push(ran);
    return ran.exit_code === 0 ? null : ran;
  };
  const behind = async (point?: string): Promise<void> => {
    const failed = await run("after", point);
    if (failed !== null) options.onWarning?.(`the command after the ${kind} ${endOf(failed)}`);
  };
  const removeDumps = (): void => {
    try {
      if (isMaker) hooked.dumps?.remove();
    } catch (error) {
      options.onWarning?.(
        `the files of the command before the ${kind} were not removed: ${toCairnError(error).message}`,
      );
    }
  };
  const current = { hooked, folder: found.folder, isOver: false };
  let result: T;
  try {
    const failed = await run("before");
    if (failed !== null) throw refused(kind, failed);
    result = await underWay.run(current, async () => work(hooked));
  } catch (error) {
    removeDumps();
    await behind();
    throw error;
  } finally {
    current.isOver = true;
  }
  removeDumps();
  await behind(pointOf(result));
  return hooked.runs.length === 0 ? result : { ...result, hooks: hooked.runs };
}

/** Returns the input of a save between hooks: the point takes their files, and its cause their runs so far. */
export function hookedInput(input: SaveInput, { runs, dumps }: Hooked): SaveInput {
  const cause = runs.length === 0 ? input.cause : { ...(input.cause ?? { kind: "person" }), hooks: [...runs] };
  return { ...input, cause, dumps: dumps ?? undefined };
}

/** The id of the point of a save or a backup. */
function pointOf(result: object): string | undefined {
  const { point, save_point_id: id } = result as Partial<SavedOrHead & { save_point_id: string }>;
  return point?.descriptor.save_point_id ?? id;
}

function endOf({ exit_code: code, output, duration_ms: ms }: HookRun): string {
  const how = code === null ? `was ended after ${Math.round(ms / 1000)} s` : `failed with status ${code}`;
  const said = output.trim().split("\n").at(-1)!;
  return said === "" ? how : `${how}: ${printablePath(Buffer.from(said.slice(-500)))}`;
}

function refused(kind: "save" | "backup", failed: HookRun): CairnError {
  return new CairnError("refused", `nothing was saved, because the command before the ${kind} ${endOf(failed)}`, {
    hint: advice`correct the command or what it needs; ${call("hooks", "hooks")} shows it, and ${option({ hooks: false }, "--no-hooks")} saves without it`,
    details: { ...failed },
  });
}

/** False if the save will be refused, since the folder or its disk is missing: its error is the better one. */
function isReady(found: FoundWorkspace): boolean {
  return isFolderThere(found.folder) && whyUnmounted(found) === null;
}

function hooksOf(found: Found): HooksFile | null {
  const file = readHooks(found);
  if (file === null || found.folder.equals(rawPath(file))) return file;
  throw new CairnError(
    "refused",
    `the hooks of this workspace were set for ${displayPath(rawPath(file)).path}, not for ${printablePath(found.folder)}`,
    {
      hint: advice`set them again here: ${call("hooks", "setHooks", word("edit"))}; or remove them: ${either("cairn hooks --none", "setHooks(null)")}`,
    },
  );
}

/**
 * Returns the folder's record, else the record of another folder with the same workspace id: the workspace was moved or
 * copied. For root the records of its daemon count too, while that daemon is down.
 */
function readHooks(found: Found): HooksFile | null {
  const daemons = stateOfOtherDaemon();
  const states = [userStateDirectory(), ...(daemons === null ? [] : [join(daemons, "cairn")])];
  const own = states.map((state) => placeOf(found, state));
  for (const place of [...own, ...states.flatMap((state) => placesOfOthers(found, state))]) {
    const owner = ownerBesidesUs(place);
    if (owner !== null)
      throw new CairnError(
        "refused",
        `the hooks in ${place} belong to the user ${owner}, and would run with this user's rights`,
        {
          hint: "work as that user",
        },
      );
    const file = readRecord(place, decodeHooks, { hint: "remove that file, and set the hooks again" });
    if (file !== null) return file;
  }
  return null;
}

function placeOf({ folder, workspace }: Found, state: string): string {
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 16);
  return join(state, "hooks", `${workspace.id}-${hash}.json`);
}

/** The records of other folders that have the workspace's id. */
function placesOfOthers(found: Found, state: string): string[] {
  const folder = join(state, "hooks");
  const own = placeOf(found, state);
  return namesIfThere(folder)
    .filter((name) => name.startsWith(`${found.workspace.id}-`) && name.endsWith(".json"))
    .map((name) => join(folder, name))
    .filter((place) => place !== own);
}
