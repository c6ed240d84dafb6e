import { isAbsolute } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { aborted } from "../../process-signal.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { AGENTS } from "./agents.ts";

const LIMIT = 16 << 20;
const WAIT_MS = 5000;
/** The work is stopped after this long, or by a signal, and left to the next command where it does not stop. */
const STOP_MS = 8000;
const LEAVE_MS = 1000;
/** Names of events that come before something, in every tool's words. */
const BEFORE = /^(?:UserPromptSubmit|PreToolUse|Before|before$|prompt$)/;

/** Facts that a tool tells a hook. */
interface Told {
  event: string;
  session?: string;
  turn?: string;
  tool?: string;
  /** First line of the person's prompt. */
  prompt?: string;
  /** First line of a shell command. */
  command?: string;
  cwd: string;
}

export const command: CommandDefinition = {
  name: "agent hook",
  arguments: [{ name: "<tool>", text: `the calling tool: ${Object.keys(AGENTS).join(", ")}` }],
  options: [
    {
      flags: "--verbose",
      text: "print what was done, or why not; by default nothing is printed, because tools treat output as a message",
    },
  ],
  examples: [{ line: "cairn agent hook claude-code", text: "called by the tool, with JSON on standard input" }],
  async run(context, input) {
    const tool = input.required(0);
    let said: string;
    let id: string | null = null;
    const signal = AbortSignal.any([context.signal, AbortSignal.timeout(STOP_MS)]);
    const left = async (): Promise<never> => {
      await aborted(signal);
      await sleep(LEAVE_MS);
      throw new Error("stopped before the folder was saved");
    };
    try {
      id = await Promise.race([read().then((text) => saved(context, tool, toldBy(text), signal)), left()]);
      said =
        id === null
          ? "no point was made: the folder is not a workspace, or nothing had changed"
          : `saved as ${id.slice(0, 8)}`;
    } catch (error) {
      // Whatever is wrong with a save is no reason for the agent's turn to fail.
      said = (error as Error).message;
    }
    return { data: { save_point_id: id }, text: () => (input.flag("verbose") ? said : "") };
  },
};

async function read(): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  const late = setTimeout(() => process.stdin.destroy(), WAIT_MS);
  for await (const piece of process.stdin as AsyncIterable<Buffer>) {
    pieces.push(piece);
    if ((bytes += piece.length) > LIMIT) break;
  }
  clearTimeout(late);
  return Buffer.concat(pieces).toString("utf8");
}

function toldBy(text: string): Told {
  const facts = JSON.parse(text) as Record<string, unknown>;
  const first = (...names: string[]): string | undefined =>
    names
      .map((name) => facts[name])
      .find((each): each is string => typeof each === "string" && each !== "")
      ?.slice(0, 256);
  const [session, turn, tool] = [
    first("session_id", "session"),
    first("prompt_id", "turn_id", "turn"),
    first("tool_name", "tool"),
  ];
  const input = facts["tool_input"] as { command?: unknown } | null | undefined;
  const [prompt, command] = [facts["prompt"], input?.command ?? facts["command"]].map(firstLine);
  return {
    event: first("hook_event_name", "event") ?? "",
    cwd: typeof facts["cwd"] === "string" ? facts["cwd"] : "",
    ...(session === undefined ? {} : { session }),
    ...(turn === undefined ? {} : { turn }),
    ...(tool === undefined ? {} : { tool }),
    ...(prompt === undefined ? {} : { prompt }),
    ...(command === undefined ? {} : { command }),
  };
}

const MOST_CHARACTERS = 200;

function firstLine(text: unknown): string | undefined {
  const parts = Array.isArray(text) ? text.join(" ") : text;
  if (typeof parts !== "string") return undefined;
  const line = parts.split("\n").find((each) => each.trim() !== "");
  return line?.trim().slice(0, MOST_CHARACTERS);
}

/** Saves the workspace in which the tool works; null where it works in none, or nothing had changed. */
async function saved(context: Context, agent: string, told: Told, signal: AbortSignal): Promise<string | null> {
  const { cwd, event, ...facts } = told;
  if (!isAbsolute(cwd)) return null;
  const library = await context.library();
  const folder = await library.find(cwd, { signal });
  if (folder === null) return null;
  const options = { signal, lockTimeoutMs: WAIT_MS };
  const client = await library.open(folder, options);
  try {
    const { made, save_point_id } = await client.save({
      ...options,
      skipUnchanged: true,
      message: `${BEFORE.test(event) ? "before" : "after"} ${facts.tool ?? "a turn"}`,
      cause: { kind: "tool_call", agent, event, ...facts },
    });
    return made ? save_point_id : null;
  } finally {
    await client.close();
  }
}
