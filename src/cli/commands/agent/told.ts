import { closeSync, readSync } from "node:fs";
import { addAbortSignal } from "node:stream";
import { openRegular } from "../../../fs/regular-file.ts";
import { boundedText, firstLineOf, isBefore } from "../../../workspace/points/agent-events.ts";
import type { Input } from "../../input.ts";
import type { Told } from "../../late-saves.ts";
import { eventIn, factOf } from "../../../agents/hook-event.ts";

/** Facts that a tool passes to its hook, as JSON on standard input or as options. */

const MOST_ID_CHARACTERS = 256;
const MOST_PROMPT_BYTES = 65 << 10;
const SILENT_MS = 300;
/** Names of tools that run shell commands. Codex's `apply_patch`, for example, has a patch as its `command`. */
const SHELL = /shell|bash|exec|terminal|command/i;

/** Returns the message of the point that a hook makes. `late`: the hook has returned, and the agent works on. */
export function messageOf(
  { event, call, tool = call === undefined ? "a turn" : "a call" }: Told,
  late = false,
): string {
  return `${late ? "during" : isBefore(event) ? "before" : "after"} ${tool}`;
}

/** Reads the JSON of an event from standard input to its end, or for `mostMs`. Throws if there is none. */
export async function toldOnInput(mostMs: number): Promise<Told> {
  const bytes = await readInput(mostMs);
  // An event that a tool did not end has its first members.
  const event = eventIn(bytes) ?? (await import("../../../agents/json.ts")).parseJson(bytes.toString("utf8"));
  if (typeof event !== "object" || event === null) throw new Error("standard input has no JSON object of an event");
  const tool = cutId(factOf(event, "tool"));
  const command = SHELL.test(tool ?? "") ? factOf(event, "command") : undefined;
  return {
    event: cutId(factOf(event, "event")) ?? "",
    cwd: factOf(event, "cwd") ?? "",
    ...present({
      session: cutId(factOf(event, "session")),
      turn: cutId(factOf(event, "turn")),
      tool,
      call: cutId(factOf(event, "call")),
      prompt: textOf(factOf(event, "prompt")),
      command: textOf(command && firstLineOf(command)),
      ...moreOf(event as Record<string, unknown>),
    }),
  };
}

const MOST_IDS = 100;
const DENIED = /denied|rejected|doesn't want to proceed|not allowed|blocked/i;

/** Reads how long a call took and which calls and commands ended, from the event of Claude Code, Gemini CLI or opencode. */
function moreOf(event: Record<string, unknown>): Partial<Told> {
  const inside = (value: unknown, name: string): unknown => (Object(value) as Record<string, unknown>)[name];
  const idsOf = (list: unknown, name: string, fits: (each: unknown) => boolean): string[] | undefined =>
    Array.isArray(list)
      ? list
          .filter(fits)
          .slice(0, MOST_IDS)
          .flatMap((each) => {
            const id = inside(each, name);
            return (typeof id === "string" ? cutId(id) : null) ?? [];
          })
      : undefined;
  const { duration_ms: took, tool_input: input, tool_response: response, prompt } = event;
  const isBackground = [inside(input, "run_in_background"), inside(input, "is_background")].includes(true);
  const task = inside(response, "backgroundTaskId");
  const told = typeof prompt === "string" && /^\s*<task-notification>/.test(prompt) ? prompt : "";
  const [, notified] = /<tool-use-id>([^<]+)/.exec(told) ?? /<task-id>([^<]+)/.exec(told) ?? [];
  const isDenied = (each: unknown): boolean => DENIED.test(JSON.stringify(inside(each, "tool_response") ?? ""));
  return present({
    duration_ms: typeof took === "number" && took >= 0 ? took : undefined,
    background: typeof task === "string" ? cutId(task) : isBackground ? "" : undefined,
    denied: idsOf(event["tool_calls"], "tool_use_id", isDenied),
    tasks: idsOf(event["background_tasks"], "id", (each) => (inside(each, "status") ?? "running") === "running"),
    notified: cutId(notified),
  });
}

/**
 * Reads standard input to its end, or until it has `mostBytes`. After `mostMs` it stops once no bytes come: a tool that still sends a
 * large event is not cut off.
 */
async function readInput(mostMs: number, mostBytes = Infinity): Promise<Buffer> {
  const late = new AbortController();
  const stop = (): void => late.abort();
  const until = performance.now() + mostMs;
  const pieces: Buffer[] = [];
  let bytes = 0;
  let timer = setTimeout(stop, mostMs);
  try {
    for await (const piece of addAbortSignal(late.signal, process.stdin) as AsyncIterable<Buffer>) {
      pieces.push(piece);
      if ((bytes += piece.length) >= mostBytes) break;
      if (performance.now() + SILENT_MS < until) continue;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENT_MS);
    }
  } catch (error) {
    if (!late.signal.aborted) throw error;
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(pieces);
}

/**
 * Reads an event of any tool from the options. A prompt begins a turn, and `--call` is then the turn's id; otherwise `--call` names a
 * tool call, and an event without it is that of a turn.
 */
export async function toldInOptions(
  input: Input,
  { event, cwd }: { event: "before" | "after"; cwd: string },
  mostMs: number,
): Promise<Told> {
  const [session, call, file] = [cutId(input.text("session")), cutId(input.text("call")), input.text("promptFile")];
  if (file === undefined && call !== undefined)
    return { event, cwd, call, ...present({ session, tool: event === "before" ? "a call" : undefined }) };
  const prompt = file === undefined ? undefined : textOf(await startOf(file, mostMs));
  return { event: event === "before" ? "prompt" : "stop", cwd, ...present({ session, turn: call, prompt }) };
}

/** Returns the first 64 KiB of a regular file, or of standard input for `-`. The turn counts without its prompt, too. */
async function startOf(file: string, mostMs: number): Promise<string> {
  try {
    return file === "-" ? (await readInput(mostMs, MOST_PROMPT_BYTES)).toString("utf8") : readStart(file);
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
