import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { coverageOf, readCovered } from "../../../agents/covered.ts";
import { foldersAbove } from "../../../agents/own-files.ts";
import { removeOld } from "../../../agents/once.ts";
import { toolsFor } from "../../../agents/tools.ts";
import { CairnError, toCairnError } from "../../../errors.ts";
import type { Environment } from "../../../fs/home.ts";
import { userStateDirectory } from "../../../fs/users.ts";
import { findWorkspace, realPathOf } from "../../../workspace/place/find-workspace.ts";
import { releasedRegistration } from "../../../workspace/place/registry.ts";
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
export async function noteFailedHook(hook: LateHook, error: unknown): Promise<boolean> {
  const { agent, asked_at: asked } = hook;
  const { cwd, prompt, command, ...facts } = hook.told;
  const { message: failed } = toCairnError(error);
  const cause = { kind: "tool_call", agent, ...facts };
  const isOfSession = (each: StoredEvent): boolean =>
    each.failed !== null && each.agent === agent && each.session === (facts.session ?? null);
  const isNoted = ({ at, event, call }: StoredEvent): boolean =>
    at >= asked && event === facts.event && call === (facts.call ?? null);
  try {
    const place = findWorkspace(cwd);
    if (place === null) throw new Error("the folder is not a workspace");
    const known = readAgentEvents(place).slice(-LAST_EVENTS).filter(isOfSession);
    const texts = { ...(prompt === undefined ? {} : { prompt }), ...(command === undefined ? {} : { command }) };
    const state = { before: null, save_point_id: null, made: false, failed };
    if (!known.some(isNoted)) await noteAgentEvent(place, { cause, texts }, state);
    return known.some(({ at }) => at < asked);
  } catch {
    const known = unopenedEvents(realOrGiven(cwd)).filter(isOfSession);
    if (!known.some(isNoted)) await noteUnopened(realOrGiven(cwd), cause, failed);
    return known.some(({ at }) => at < asked);
  }
}

function realOrGiven(folder: string): string {
  try {
    return realPathOf(folder).toString("utf8");
  } catch {
    return folder;
  }
}

/** Throws `not_a_workspace` for a folder that is covered or to which the tool's hooks point, and that is no workspace any more. */
export function requireNotCovered({ agent, told }: LateHook, env: Environment): void {
  const folder = realPathOf(told.cwd).toString("utf8");
  const released = foldersAbove(folder).find((each) => releasedRegistration(each) !== null);
  if (released !== undefined && toolsFor(released, env).includes(agent))
    throw new CairnError("not_a_workspace", `${printable(released)} was released`);
  const list = readCovered(env);
  const coverage = list === null ? null : coverageOf(list, agent, folder);
  if (coverage?.by === "folder")
    throw new CairnError("not_a_workspace", `${printable(coverage.root!)} is covered, but not a workspace`);
}

/**
 * Returns the answer that shows a failure in the tool, once for each session. `isAgain`: an earlier hook of the session
 * failed, which counts as told if no note can be made, for example on a full disk.
 */
export function toldOnce({ agent, told }: LateHook, failed: string, isAgain = true): string {
  if (!SHOWING.has(agent) || wasTold(`${agent}\0${told.session ?? told.cwd}`, isAgain)) return "";
  const systemMessage = `Cairn could not save this folder: ${printable(failed)}. It may not be able to take back what is changed now; cairn agent status shows more.`;
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
