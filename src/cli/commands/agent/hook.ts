import { isAbsolute } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { CallOptions } from "../../../contract/index.ts";
import { toCairnError } from "../../../errors.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { type Input, usage } from "../../input.ts";
import { aborted } from "../../process-signal.ts";
import { onceForEvent } from "../../../agents/once.ts";
import { eachOf, IF_COVERED, TOOLS } from "../../../agents/tools.ts";
import { isBefore } from "../../../workspace/points/agent-events.ts";
import { LATE, type LateHook, LateSaves } from "../../late-saves.ts";
import { cutId, messageOf, toldInOptions, toldOnInput } from "./told.ts";

/** Milliseconds after the start of the process. An agent waits at most 2 s for its hook. */
const HAND_OVER_MS = 1300;
/** Milliseconds within which an aborted save normally ends. After them the process exits in any case; the next save recovers. */
const ABORT_MS = 250;
/** Milliseconds without progress after which a background save is ended. */
const SILENCE_MS = 600_000;
const LOCK_MS = 600_000;
/** Milliseconds for which the event is waited for in any case. */
const LEAST_INPUT_MS = 500;

export const command: CommandDefinition = {
  name: "agent hook",
  arguments: [
    {
      name: "[tool]",
      text: `the calling tool, with JSON on standard input: ${Object.keys(TOOLS).join(", ")}; or any other tool, with --event`,
    },
  ],
  options: [
    {
      flags: "--event <when>",
      text: "before or after a turn or tool call of any other tool",
      values: ["before", "after"],
    },
    { flags: "--session <id>", text: "with --event: any text that the events of one session have in common" },
    {
      flags: "--call <id>",
      text: "with --event: the tool call; without it, and with a prompt, the event is that of a turn",
    },
    {
      flags: "--prompt-file <file>",
      text: "with --event: file with the prompt that begins a turn; `-`: standard input",
    },
    {
      flags: "--verbose",
      text: "print what was done, or why not; by default nothing is printed, because tools treat output as a message",
    },
    {
      flags: IF_COVERED,
      text: "do nothing in a folder that `agent install` does not cover; decided before the command starts",
    },
  ],
  examples: [
    { line: "cairn agent hook claude-code", text: "called by the tool, with JSON on standard input" },
    {
      line: "cairn agent hook mine --event before --session 5e1f --prompt-file prompt.txt",
      text: "a turn of any other tool begins in the current folder",
    },
    {
      line: "cairn agent hook mine --event after --session 5e1f --call 9f86d081",
      text: "a tool call ended",
    },
  ],
  async run(context, input) {
    let done: Done = { id: null, said: "" };
    let hook: LateHook | null = null;
    try {
      done =
        input.argument(0) === LATE
          ? await makeLateSaves(context)
          : await saveInTime(context, (hook = await hookOf(context, input)));
    } catch (error) {
      // A failed save must not fail the agent's turn.
      done.said = (error as Error).message;
      if (hook !== null) done.answer = await (await onFailure()).failedHook(hook, error);
      else if (toCairnError(error).code === "usage") context.note(done.said, true);
    }
    const { id, said, answer = "" } = done;
    return { data: { save_point_id: id }, text: () => (input.flag("verbose") ? said : answer) };
  },
};

interface Done {
  /** the new point; null if none was made, or not yet */
  id: string | null;
  said: string;
  /** output for the tool; absent: none */
  answer?: string;
}

/** Loads the part for hooks that find no workspace or fail. Most hooks save, and do without it. */
const onFailure = async () => import("./failed-hook.ts");

/** Finds the workspace in which a tool works. Another worktree of a covered repository becomes one. */
async function workspaceOf(context: Context, hook: LateHook, options: CallOptions): Promise<string | null> {
  const library = await context.library();
  const found = await library.find(hook.told.cwd, options);
  const root = found === null ? (await onFailure()).newRoot(hook, context.env) : null;
  if (root === null) return found;
  await using client = await library.openOrInit(root, options);
  return client.workspacePath();
}

const UNCHANGED: Done = { id: null, said: "no point was made: nothing had changed" };
const DOUBLE: Done = { id: null, said: "no point was made: another hook saved for the same event" };
const NO_WORKSPACE: Done = { id: null, said: "no point was made: the folder is not a workspace" };

/** Milliseconds until the save is handed over. */
const timeLeft = (): number => Math.max(0, Math.round(HAND_OVER_MS - process.uptime() * 1000));

/** Reads the event that a tool tells on standard input or by options. */
async function hookOf(context: Context, input: Input): Promise<LateHook> {
  const agent = cutId(input.argument(0));
  if (agent === undefined) throw usage("name the calling tool: `cairn agent hook TOOL`");
  const event = input.choice("event", ["before", "after"]);
  if (event === undefined && !Object.hasOwn(TOOLS, agent))
    throw usage(`${agent} tells its event by options: add --event before or --event after`);
  // On a busy machine no time may be left, but without its event a hook is of no use.
  const mostMs = Math.max(timeLeft(), LEAST_INPUT_MS);
  const told = await (event === undefined
    ? toldOnInput(mostMs)
    : toldInOptions(input, { event, cwd: context.folder() }, mostMs));
  const each = told.tool === undefined && isBefore(told.event) ? eachOf(agent, told.cwd, context.env) : undefined;
  const called_at = new Date(performance.timeOrigin).toISOString();
  return { agent, told, asked_at: new Date().toISOString(), called_at, ...(each && { each }) };
}

/** Saves the workspace in which the tool works. Hands a slow save to the background process. */
async function saveInTime(context: Context, hook: LateHook): Promise<Done> {
  const { cwd } = hook.told;
  if (!isAbsolute(cwd)) return NO_WORKSPACE;
  const late = AbortSignal.timeout(timeLeft());
  const signal = AbortSignal.any([context.signal, late]);
  let folder = cwd;
  const saving = (async (): Promise<Done> => {
    const found = await workspaceOf(context, hook, { signal });
    if (found === null) return NO_WORKSPACE;
    folder = found;
    const saves = new LateSaves(found);
    const options = { signal, lockTimeoutMs: LOCK_MS };
    return saves.isPending() ? handOver(saves, hook) : saveOnce(context, found, hook, options);
  })();
  const ending = aborted(signal).then(async (): Promise<Done> => {
    await sleep(ABORT_MS, undefined, { ref: false });
    throw new Error("stopped before the folder was saved");
  });
  try {
    return await Promise.race([saving, ending]);
  } catch (error) {
    if (!late.aborted || context.signal.aborted) throw error;
    return await handOver(new LateSaves(folder), hook);
  }
}

async function handOver(saves: LateSaves, hook: LateHook): Promise<Done> {
  const said = saves.describe() ?? "saving in the background";
  const failed = saves.state()?.failed ?? null;
  await saves.add({ ...hook, returned_at: new Date().toISOString() });
  return { id: null, said, answer: failed === null ? "" : (await onFailure()).toldOnce(hook, failed) };
}

/** Makes one save for an event, however many hooks the tool runs for it. */
const saveOnce = async (...[context, folder, hook, options, isLate]: Parameters<typeof save>): Promise<Done> =>
  (await onceForEvent(
    { ...hook.told, agent: hook.agent },
    async () => save(context, folder, hook, options, isLate),
    options,
  )) ?? DOUBLE;

/** Makes one save. Returns no id if nothing had changed. */
async function save(
  context: Context,
  folder: string,
  { agent, told: { cwd: _cwd, ...facts }, asked_at, ...times }: LateHook,
  options: CallOptions,
  isLate = false,
): Promise<Done> {
  const client = await (await context.library()).open(folder, options);
  try {
    const { made, save_point_id: id } = await client.save({
      ...options,
      skipUnchanged: true,
      message: messageOf({ ...facts, cwd: folder }, isLate),
      cause: { kind: "tool_call", agent, ...facts, ...times, ...(isLate ? { asked_at } : {}) },
    });
    return made ? { id, said: `saved as ${id.slice(0, 8)}` } : UNCHANGED;
  } finally {
    await client.close();
  }
}

async function makeLateSaves(context: Context): Promise<Done> {
  const folder = context.folder();
  await new LateSaves(folder).drain(async (hook, onProgress) => {
    const silent = new AbortController();
    const signal = AbortSignal.any([context.signal, silent.signal]);
    const timer = setTimeout(() => silent.abort(new Error("no progress for 10 minutes")), SILENCE_MS);
    try {
      const found = await workspaceOf(context, hook, { signal });
      if (found === null) return;
      const options: CallOptions = {
        signal,
        lockTimeoutMs: LOCK_MS,
        onProgress(progress) {
          timer.refresh();
          onProgress(progress);
        },
      };
      await saveOnce(context, found, hook, options, true);
    } catch (error) {
      await (await onFailure()).noteFailedHook(hook, error);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  });
  return { id: null, said: "the waiting saves were made" };
}
