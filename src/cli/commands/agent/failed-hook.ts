import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { coverageOf, orNull, readCovered } from "../../../agents/covered.ts";
import { foldersAbove } from "../../../agents/own-files.ts";
import { removeOld } from "../../../agents/once.ts";
import { toolsFor } from "../../../agents/tools.ts";
import { CairnError, toCairnError } from "../../../errors.ts";
import type { Environment } from "../../../fs/home.ts";
import { userStateDirectory } from "../../../fs/users.ts";
import { findWorkspace, realPathOf } from "../../../workspace/place/find-workspace.ts";
import { readRegistration, releasedRegistration } from "../../../workspace/place/registry.ts";
import {
  noteAgentEvent,
  noteUnopened,
  readAgentEvents,
  type StoredEvent,
  unopenedEvents,
} from "../../../workspace/points/agent-record.ts";
import type { LateHook } from "../../late-saves.ts";
import { printable } from "../../render/format.ts";

/** A hook that saved nothing is recorded, and says so once in each session, if its tool shows messages of hooks. */

/** Tools that show the member `systemMessage` of a hook's answer to the person. */
const SHOWING: ReadonlySet<string> = new Set(["claude-code", "codex", "gemini"]);
/** Events that are compared with a failed hook: the save itself, or a daemon, may have recorded it. */
const LAST_EVENTS = 100;
const FORGOTTEN_MS = 30 * 86_400_000;

/** Records a hook that saved nothing. Returns its answer for its tool, "" for none. Never throws. */
export async function failedHook(hook: LateHook, error: unknown): Promise<string> {
  const isAgain = await noteFailedHook(hook, error);
  return toldOnce(hook, toCairnError(error).message, isAgain);
}

/**
 * Records a hook that saved nothing, unless its save did that already: in the record of its workspace, or in the user's
 * own if that cannot be opened. Returns true if an earlier hook of the session failed, too. Never throws.
 */
export async function noteFailedHook(
  { agent, asked_at: asked, told, ...times }: LateHook,
  error: unknown,
): Promise<boolean> {
  const { cwd, prompt, command, ...facts } = told;
  const { message: failed } = toCairnError(error);
  const cause = { kind: "tool_call", agent, ...facts, ...times };
  const isOfSession = (each: StoredEvent): boolean =>
    each.failed !== null && each.agent === agent && each.session === (facts.session ?? null);
  const isNoted = ({ at, event, call }: StoredEvent): boolean =>
    at >= asked && event === facts.event && call === (facts.call ?? null);
  let known: StoredEvent[];
  try {
    const place = findWorkspace(cwd);
    if (place === null) throw new Error("the folder is not a workspace");
    known = readAgentEvents(place).slice(-LAST_EVENTS).filter(isOfSession);
    const texts = { ...(prompt === undefined ? {} : { prompt }), ...(command === undefined ? {} : { command }) };
    const state = { before: null, save_point_id: null, made: false, failed };
    if (!known.some(isNoted)) await noteAgentEvent(place, { cause, texts }, state);
  } catch {
    const root = rootAbove(cwd);
    known = unopenedEvents(root).filter(isOfSession);
    if (!known.some(isNoted)) await noteUnopened(root, cause, failed);
  }
  return known.some(({ at }) => at < asked);
}

/**
 * Returns the nearest folder that is registered as a workspace or covered, from `folder` upwards, also if the workspace cannot be
 * opened. Returns the real path of `folder` if there is none. Never throws.
 */
export function rootAbove(folder: string): string {
  const covered = new Set(readCovered()?.map((each) => each.folder?.path));
  // A damaged registration is one, too.
  const isNone = (path: string): boolean => orNull(() => readRegistration(path) === null) === true;
  const real = orNull(() => realPathOf(folder).toString("utf8")) ?? folder;
  return foldersAbove(real).find((path) => covered.has(path) || !isNone(path)) ?? real;
}

/**
 * Returns the worktree of a covered repository that becomes a workspace for a hook in a folder without one; null: the folder is not
 * covered. Throws `not_a_workspace` for a folder that is covered or to which the tool's hooks point, and that is no workspace any more.
 */
export function newRoot({ agent, told }: LateHook, env: Environment): string | null {
  const folder = realPathOf(told.cwd).toString("utf8");
  const isReleased = (path: string): boolean => releasedRegistration(path) !== null;
  const released = foldersAbove(folder).find(isReleased);
  const covers = readCovered(env) ?? [];
  if (released !== undefined && toolsFor(released, env, covers).includes(agent))
    throw new CairnError("not_a_workspace", `${printable(released)} was released`);
  const { by, root = null } = coverageOf(covers, agent, folder) ?? {};
  if (by === "folder") throw new CairnError("not_a_workspace", `${printable(root!)} is covered, but not a workspace`);
  return by === "family" && !isReleased(root!) ? root : null;
}

/**
 * Returns the answer that shows a failure in the tool, once for each session. `isAgain`: an earlier hook of the session
 * failed, which counts as told if no note can be made, for example on a full disk.
 */
export function toldOnce({ agent, told }: LateHook, failed: string, isAgain = true): string {
  if (!SHOWING.has(agent) || wasTold(`${agent}\0${told.session ?? told.cwd}`, isAgain)) return "";
  const systemMessage = `Cairn could not save this folder: ${printable(failed)}. Changes from now on may be impossible to undo. Run \`cairn agent status\` for details.`;
  return JSON.stringify({ systemMessage });
}

/** Notes that a session was told. Returns true if it was told before, and `unknown` if no note can be made. */
function wasTold(session: string, unknown: boolean): boolean {
  try {
    const folder = join(userStateDirectory(), "agents", "told");
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    closeSync(openSync(join(folder, createHash("sha256").update(session).digest("hex")), "wx", 0o600));
    removeOld(folder, FORGOTTEN_MS);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EEXIST" || unknown;
  }
}
