import { AsyncLocalStorage } from "node:async_hooks";
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import type { Hooks, HooksEdit } from "../contract/care.ts";
import type { HookRun, WorkspaceCallOptions } from "../contract/words.ts";
import { advice, CairnError, call, either, option, toCairnError, word } from "../errors.ts";
import {
  decodeHooks,
  DEFAULT_SECONDS,
  encodeHooks,
  HOOK_NAMES,
  type HookName,
  type HooksFile,
  MAX_SECONDS,
} from "../formats/records/kept-repository.ts";
import { rawPath, recordPath } from "../formats/records/record.ts";
import { durableMkdir, durableWrite, readRecord } from "../fs/durable.ts";
import { namesIfThere } from "../fs/paths/names-in.ts";
import { displayPath, printablePath } from "../fs/paths/safe-path.ts";
import { clearAway } from "../fs/remove-all.ts";
import { runShell } from "../fs/shell-command.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { isFolderThere } from "../workspace/place/control-directory.ts";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import { whyUnmounted } from "../workspace/place/mounted.ts";
import { ownerBesidesUs, requireOwnHome } from "../workspace/place/owners.ts";
import { stateThatKeeps } from "../workspace/place/registry.ts";
import { makeDumps, withDumps } from "../workspace/save/dumps.ts";
import type { SaveInput } from "../workspace/save/record-point.ts";
import type { SavedOrHead } from "../workspace/save/save.ts";
import { requireShellSyntax } from "./alarm.ts";

/**
 * The commands before and after saves and backups. They lie in the state directory of the user who runs them, never in
 * the folder or its control directory: a folder that was copied or cloned here brings no commands along.
 */

type Found = Pick<FoundWorkspace, "folder" | "workspace">;

const MOST_OUTPUT_BYTES = 4096;

/** A save or backup between its hooks. */
interface Hooked {
  readonly folder: Buffer;
  readonly runs: HookRun[];
  /** The directory into which `before` commands write; null: none has run. */
  dumps: Buffer | null;
  isOver: boolean;
}

/** `child`: a process that the command left and that ran until the time limit. */
type FailedRun = HookRun & { child: string | null };

/** A backup between its hooks, whose dumps its save takes. The daemon makes that save by a call of its own. */
const underWay = new AsyncLocalStorage<Hooked>();

/**
 * Variable of a hook's command: the ids of the workspaces in whose hooks it runs. Their hooks would run without end if
 * the command saves or backs up one of them.
 */
const RUNS_IN = "CAIRN_HOOKS_OF";

/** Returns the workspace's hooks; null if there are none. Throws `refused` for a record of another user or folder. */
export function hooks({ found }: { found: Found }): Hooks | null {
  const file = hooksOf(found);
  if (file === null || HOOK_NAMES.every((name) => file[name] === undefined)) return null;
  const commands = HOOK_NAMES.map((name) => [name, file[name] ?? null]);
  return { ...(Object.fromEntries(commands) as Omit<Hooks, "seconds">), seconds: file.seconds };
}

/**
 * Changes the given hooks of a workspace; null: removes all. Throws `usage`, also for a command that the shell cannot
 * parse, and `refused` for root in another user's workspace.
 */
export async function setHooks(workspace: Workspace, edit: HooksEdit | null): Promise<Hooks | null> {
  const { found } = workspace;
  const { seconds, ...commands } = edit ?? {};
  if (seconds !== undefined && !(seconds >= 1 && seconds <= MAX_SECONDS))
    throw new CairnError("usage", `the time limit of hooks must be from 1 to ${MAX_SECONDS} seconds`);
  workspace.requireNotOthers();
  const former = edit === null ? null : readHooks(found);
  // Commands that were set for another folder are not taken over.
  const kept = former !== null && isFor(former, found) ? former : {};
  const file: HooksFile = { seconds: DEFAULT_SECONDS, ...kept, ...recordPath(found.folder) };
  if (seconds !== undefined) file.seconds = seconds;
  for (const [key, command] of Object.entries(commands)) {
    const name = key.replace(/[BS]/, (letter) => `_${letter.toLowerCase()}`) as HookName;
    if (command === undefined) continue;
    if (command === null || command === "") delete file[name];
    else {
      await requireShellSyntax(command);
      file[name] = command;
    }
  }
  const place = placeOf(found);
  requireOwnHome(place);
  durableMkdir(dirname(place));
  // Also without commands: else the hooks of a workspace with the same id would be refused here.
  durableWrite(place, encodeHooks(file), { mode: 0o600 });
  return hooks({ found });
}

/**
 * Runs `work` between the hooks of its kind. If the `before` command fails, throws `refused` without `work`. The `after`
 * command runs whether `work` ends well or not; if it fails, the result says so.
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
  const hooked: Hooked = isJoined ? outer : { folder: found.folder, runs: [], dumps: null, isOver: false };
  const isMaker = hooked.dumps === null;
  const within = process.env[RUNS_IN]?.split(" ") ?? [];
  const runsNone = options.hooks === false || within.includes(found.workspace.id) || !isReady(found);
  const file = runsNone ? null : hooksOf(found);
  const run = async (when: "before" | "after", env: Record<string, string>): Promise<FailedRun | null> => {
    const [hook, command] = [`${when}_${kind}` as const, file?.[`${when}_${kind}`]];
    if (command === undefined) return null;
    const { exitCode, durationMs, output, child } = await runShell(command, {
      env: { ...env, CAIRN_FOLDER: String(found.folder), [RUNS_IN]: [...within, found.workspace.id].join(" ") },
      signal: when === "before" ? options.signal : undefined,
      timeoutMs: file!.seconds * 1000,
      mostBytes: MOST_OUTPUT_BYTES,
      // A child in the background may still write a dump.
      awaitsChildren: when === "before",
    }).catch((error: unknown) => {
      // The save is made. Without memory or processes for a shell, its answer says that the command did not run.
      if (when === "before") throw error;
      return { exitCode: 127, durationMs: 0, output: Buffer.from(toCairnError(error).message), child: null };
    });
    const ran = { hook, exit_code: exitCode, duration_ms: durationMs, output: Buffer.from(output).toString() };
    hooked.runs.push(ran);
    return exitCode === 0 ? null : { ...ran, child };
  };
  const what = `${kind} of ${printablePath(found.folder)}`;
  let result: T | undefined;
  try {
    if (file?.[`before_${kind}`] !== undefined) hooked.dumps ??= makeDumps(found.folder);
    const failed = await run("before", { CAIRN_SAVE_POINT: "", CAIRN_DUMPS: String(hooked.dumps) });
    if (failed !== null) throw refused(what, failed);
    result = await underWay.run(hooked, async () => work(hooked));
  } finally {
    hooked.isOver = !isJoined;
    if (isMaker && hooked.dumps !== null) clearAway(hooked.dumps);
    const failed = await run("after", { CAIRN_SAVE_POINT: pointOf(result) });
    if (failed !== null) options.onWarning?.(`the command after the ${what} ${endOf(failed)}`);
  }
  return hooked.runs.length === 0 ? result : { ...result, hooks: hooked.runs };
}

/** Returns the input of a save between hooks: the point takes the dumps, and its cause has the runs so far. */
export function hookedInput(input: SaveInput, { runs, dumps }: Hooked): SaveInput {
  if (runs.length === 0) return input;
  const cause = { ...(input.cause ?? { kind: "person" }), hooks: [...runs] };
  return dumps === null
    ? { ...input, cause }
    : { ...input, cause, withDumps: async (workspace, save) => withDumps(workspace, dumps, input, save) };
}

/** The id of the point of a save or a backup; empty: none was made. */
function pointOf(result: object | undefined): string {
  const { point, save_point_id: id = "" } = (result ?? {}) as Partial<SavedOrHead & { save_point_id: string | null }>;
  return point?.descriptor.save_point_id ?? id ?? "";
}

function endOf({ exit_code: code, output, duration_ms: ms, child }: FailedRun): string {
  const ended = `was ended after ${Math.round(ms / 1000)} s${child === null ? "" : `, because its child ${printablePath(Buffer.from(child))} still ran`}`;
  const how = code === null ? ended : `failed with status ${code}`;
  const said = output.trim().split("\n").at(-1)!;
  return said === "" ? how : `${how}: ${printablePath(Buffer.from(said.slice(-500)))}`;
}

function refused(what: string, failed: FailedRun): CairnError {
  return new CairnError("refused", `nothing was saved, because the command before the ${what} ${endOf(failed)}`, {
    hint: advice`correct the command or what it needs; ${call("hooks", "hooks")} shows it, and ${option({ hooks: false }, "--no-hooks")} saves without it`,
    details: { ...failed },
  });
}

/** False if the save will be refused, since the folder or its disk is missing: its error is the better one. */
function isReady(found: FoundWorkspace): boolean {
  return isFolderThere(found.folder) && whyUnmounted(found) === null;
}

function isFor(file: HooksFile, { folder }: Found): boolean {
  return folder.equals(rawPath(file));
}

function hooksOf(found: Found): HooksFile | null {
  const file = readHooks(found);
  if (file === null || isFor(file, found)) return file;
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
 * copied.
 */
function readHooks(found: Found): HooksFile | null {
  const own = placeOf(found);
  const others = namesIfThere(dirname(own)).filter((name) => name.startsWith(`${found.workspace.id}-`));
  for (const place of [own, ...others.map((name) => join(dirname(own), name))]) {
    const owner = ownerBesidesUs(place);
    if (owner !== null)
      throw new CairnError(
        "refused",
        `the hooks in ${place} belong to the user ${owner}, and would run with this user's rights`,
        { hint: "work as that user" },
      );
    const file = readRecord(place, decodeHooks, { hint: "remove that file, and set the hooks again" });
    if (file !== null) return file;
  }
  return null;
}

/** The folder's record lies in the state directory of the user who keeps the folder: of root's daemon also while it is down. */
function placeOf({ folder, workspace }: Found): string {
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 16);
  return join(stateThatKeeps(folder), "hooks", `${workspace.id}-${hash}.json`);
}
