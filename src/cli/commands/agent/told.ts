import { closeSync, readSync } from "node:fs";
import { addAbortSignal } from "node:stream";
import { openRegular } from "../../../fs/regular-file.ts";
import { boundedText, firstLineOf, isBefore } from "../../../workspace/points/agent-events.ts";
import { type Input, usage } from "../../input.ts";
import type { Told } from "../../late-saves.ts";
import { JsonStrings } from "../../../agents/json-strings.ts";

/** Facts that a tool passes to its hook, as JSON on standard input or as options. */

const MOST_ID_CHARACTERS = 256;
const MOST_PROMPT_BYTES = 65 << 10;
const SILENT_MS = 300;
/** Names of tools that run shell commands. Codex's `apply_patch`, for example, has a patch as its `command`. */
const SHELL = /shell|bash|exec|terminal|command/i;

/** Members that are read, in the words of all tools. Earlier words of a row come first. */
const MEMBERS = {
  event: ["hook_event_name", "event"],
  session: ["session_id", "session"],
  turn: ["prompt_id", "turn_id", "turn"],
  tool: ["tool_name", "tool"],
  call: ["tool_use_id", "call_id", "call"],
  command: ["tool_input.command", "command"],
  prompt: ["prompt"],
  cwd: ["cwd"],
} as const;

/** Returns the message of the point that a hook makes. `late`: the hook has returned, and the agent works on. */
export function messageOf(
  { event, call, tool = call === undefined ? "a turn" : "a call" }: Told,
  late = false,
): string {
  return `${late ? "during" : isBefore(event) ? "before" : "after"} ${tool}`;
}

/** Reads the JSON of an event from standard input to its end, or for `mostMs`. Throws if there is none. */
export async function toldOnInput(mostMs: number): Promise<Told> {
  const strings = new JsonStrings(Object.values(MEMBERS).flat());
  await readInput(mostMs, (chunk) => strings.push(chunk));
  if (strings.end().isEmpty) throw new Error("standard input has no JSON object of an event");
  const first = (name: keyof typeof MEMBERS): string | undefined =>
    MEMBERS[name].map((member) => strings.get(member)).find((text) => text !== undefined && text !== "");
  const [tool, prompt, command] = [first("tool"), first("prompt"), first("command")];
  return {
    event: cutId(first("event")) ?? "",
    cwd: first("cwd") ?? "",
    ...present({
      session: cutId(first("session")),
      turn: cutId(first("turn")),
      tool: cutId(tool),
      call: cutId(first("call")),
      prompt: textOf(prompt),
      command: SHELL.test(tool ?? "") ? textOf(command && firstLineOf(command)) : undefined,
    }),
  };
}

/**
 * Passes the bytes of standard input on, until its end. After `mostMs` it stops once no bytes come: a tool that still sends a large event
 * is not cut off. Stops if `take` returns false.
 */
async function readInput(mostMs: number, take: (chunk: Buffer) => unknown): Promise<void> {
  const late = new AbortController();
  const stop = (): void => late.abort();
  const until = performance.now() + mostMs;
  let timer = setTimeout(stop, mostMs);
  try {
    for await (const chunk of addAbortSignal(late.signal, process.stdin) as AsyncIterable<Buffer>) {
      if (take(chunk) === false) break;
      if (performance.now() + SILENT_MS < until) continue;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENT_MS);
    }
  } catch (error) {
    if (!late.signal.aborted) throw error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Reads an event of any tool from the options. A prompt begins a turn, and `--call` is then the turn's id; otherwise `--call` names a
 * tool call, and an event without it is that of a turn. Throws `usage` for an unknown event.
 */
export async function toldInOptions(input: Input, cwd: string, mostMs: number): Promise<Told> {
  const event = input.choice("event", ["before", "after"]);
  if (event === undefined) throw usage("--tool needs --event before or --event after");
  const [session, call, file] = [cutId(input.text("session")), cutId(input.text("call")), input.text("promptFile")];
  if (file === undefined && call !== undefined)
    return { event, cwd, call, ...present({ session, tool: event === "before" ? "a call" : undefined }) };
  const prompt = file === undefined ? undefined : textOf(await startOf(file, mostMs));
  return { event: event === "before" ? "prompt" : "stop", cwd, ...present({ session, turn: call, prompt }) };
}

/** Returns the first 64 KiB of a regular file, or of standard input for `-`. The turn counts without its prompt, too. */
async function startOf(file: string, mostMs: number): Promise<string> {
  try {
    if (file !== "-") return readStart(file);
    const pieces: Buffer[] = [];
    let bytes = 0;
    await readInput(mostMs, (chunk) => {
      pieces.push(chunk);
      return (bytes += chunk.length) < MOST_PROMPT_BYTES;
    });
    return Buffer.concat(pieces).toString("utf8");
  } catch (error) {
    return `(the prompt could not be read: ${(error as Error).message})`;
  }
}

function readStart(file: string): string {
  const descriptor = openRegular(file, { named: true });
  try {
    const bytes = Buffer.alloc(MOST_PROMPT_BYTES);
    return bytes.toString("utf8", 0, readSync(descriptor, bytes, 0, MOST_PROMPT_BYTES, 0));
  } finally {
    closeSync(descriptor);
  }
}

/** Cuts an id. An empty one is none. */
export const cutId = (text: string | undefined): string | undefined => text?.slice(0, MOST_ID_CHARACTERS) || undefined;

const textOf = (text: string | undefined): string | undefined =>
  text === undefined || text.trim() === "" ? undefined : boundedText(text);

function present(values: Partial<Told>): Partial<Told> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}
