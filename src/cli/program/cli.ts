import { CairnError, toCairnError } from "../../errors.ts";
import type { CairnLibrary } from "../../contract/index.ts";
import type { Outcome } from "../command.ts";
import { COMMANDS } from "./commands.ts";
import { Context } from "../context.ts";
import type { Globals } from "../context.ts";
import { kernelWaits } from "../../fs/silent-mounts.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { hintHere } from "../hint-here.ts";
import { EXIT_PARTLY, makeEnvelope, printEnvelope } from "../envelope.ts";
import { asksForJson, commandNameOf, parse, understoodName } from "./program.ts";
import type { Parsed } from "./program.ts";
import { makeProgress } from "../progress.ts";
import { printable } from "../render/format.ts";
import { inLocale, makeStyle, wantsColour } from "../render/style.ts";

/** An output stream. Drops writes after the reader has gone; `closed` becomes true then. */
export interface OutputSink {
  /** Resolves when the stream can take more. */
  write(chunk: string | Uint8Array): Promise<void>;
  readonly isTerminal: boolean;
  readonly columns: number;
  readonly closed: boolean;
}

export interface CliInput {
  argv: readonly string[];
  /** The current folder, or its last path if it was removed; null if unknown. */
  cwd: string | null;
  /** The reason why nothing can be named relative to the current folder. */
  cwdProblem?: string | undefined;
  env: Record<string, string | undefined>;
  stdout: OutputSink;
  stderr: OutputSink;
  signal: AbortSignal;
  openLibrary: () => Promise<CairnLibrary>;
  setCommandRunning?: (pid: number | null) => void;
  /** Receives the function that prints the call's progress on request. */
  setTelling?: (tell: () => void) => void;
}

/** One call of the command line, from arguments to exit status. Never throws. */
export async function runCli(input: CliInput): Promise<number> {
  let parsed: Parsed;
  try {
    parsed = await parse(input.argv);
  } catch (error) {
    const command = await understoodName(input.argv).catch(() => null);
    return fail(input, { command, json: asksForJson(input.argv), warnings: [] }, toCairnError(error));
  }
  if (parsed.kind === "print") return print(input, parsed);
  return call(input, parsed);
}

async function print(input: CliInput, parsed: Parsed & { kind: "print" }): Promise<number> {
  const envelope = { command: parsed.name, exitStatus: 0, data: { text: parsed.text }, warnings: [], error: null };
  await input.stdout.write(parsed.json ? printEnvelope(makeEnvelope(envelope)) : inLocale(input.env)(parsed.text));
  return 0;
}

async function call(input: CliInput, parsed: Parsed & { kind: "call" }): Promise<number> {
  const context = makeContext(input, parsed.globals);
  input.setTelling?.(() => context.progress.tell());
  const { json } = parsed.globals;
  const ended = tellOfStop(context, parsed.name.startsWith("backup"));
  const waits = endIfSilent(context);
  try {
    const outcome = await parsed.definition.run(context, parsed.input);
    context.progress.finish();
    if (outcome.error !== undefined) outcome.error = await hintHere(outcome.error, context, parsed.input);
    let exitStatus = outcome.exitStatus ?? outcome.error?.exitStatus ?? 0;
    if (json) {
      const data = await jsonData(outcome);
      const warnings = context.takeWarnings();
      const envelope = makeEnvelope({ command: parsed.name, exitStatus, data, warnings, error: outcome.error ?? null });
      await input.stdout.write(printEnvelope(envelope));
    } else {
      await printOutcome(input, context, isAnswered(parsed) ? outcome : { ...outcome, text: () => "" });
      // With `> /dev/null` in a crontab only stderr is left. The exit status of `run` is its command's.
      const isUnseen = !input.stdout.isTerminal && parsed.name !== "run" && outcome.error === undefined;
      if (isUnseen && exitStatus === EXIT_PARTLY) context.diagnose(PARTLY);
    }
    if (outcome.afterwards !== undefined) exitStatus = await goOn(input, outcome.afterwards, exitStatus);
    return exitStatus;
  } catch (error) {
    context.progress.finish();
    const known = input.signal.aborted ? asInterrupted(error) : toCairnError(error);
    const wrapped = await hintHere(known, context, parsed.input);
    return await fail(input, { command: parsed.name, json, warnings: context.takeWarnings() }, wrapped);
  } finally {
    // The result is printed; the next start takes over a lock that cannot be released.
    await context.close().catch(() => undefined);
    ended();
    clearInterval(waits);
  }
}

/** Tells people why a stopped call has not ended at once. Returns a function to call at its end. */
function tellOfStop(context: Context, isBackup: boolean): () => void {
  const { signal, globals } = context;
  let timer: NodeJS.Timeout | undefined;
  const tell = (): void => context.diagnose(isBackup ? STOPPING_BACKUP : STOPPING);
  const stopped = (): void => void (timer = setTimeout(tell, TELL_OF_STOP_MS));
  if (!globals.json && !globals.quiet) signal.addEventListener("abort", stopped, { once: true });
  return () => {
    signal.removeEventListener("abort", stopped);
    clearTimeout(timer);
  };
}

/**
 * Names a mount for which a thread has waited for long. If the call is to stop meanwhile, kills this process: such a
 * thread hears no request to stop, and kills are safe.
 */
function endIfSilent(context: Context): NodeJS.Timeout {
  const { signal, globals } = context;
  let waits: ReturnType<typeof kernelWaits> = new Map();
  let hasTold = globals.json || globals.quiet;
  const look = (): void => {
    waits = kernelWaits(waits);
    const long = [...waits.values()].find(({ since }) => performance.now() - since >= SILENT_MS);
    if (long === undefined) return;
    const place = long.mountPoint === null ? "a disk or mount" : `the mount ${printablePath(long.mountPoint)}`;
    if (!hasTold) context.diagnose(`${place} has not answered for ${SILENT_MS / 1000} s: ${SILENT_HINT}`);
    hasTold = true;
    if (signal.aborted && long.mountPoint !== null) process.kill(process.pid, "SIGKILL");
  };
  return setInterval(look, LOOK_MS).unref();
}

/** The result is printed, so a failure goes only to stderr. */
async function goOn(input: CliInput, afterwards: () => Promise<void>, exitStatus: number): Promise<number> {
  try {
    await afterwards();
    return exitStatus;
  } catch (error) {
    const wrapped = toCairnError(error);
    await explain(input, wrapped);
    return wrapped.exitStatus;
  }
}

/** Turns an error that the signal caused into `interrupted`; damage stays damage. */
function asInterrupted(error: unknown): CairnError {
  const wrapped = toCairnError(error);
  if (wrapped.code === "interrupted" || (wrapped.code !== "internal" && wrapped.code !== "io")) return wrapped;
  return new CairnError("interrupted", "stopped by a signal", { cause: error });
}

function makeContext(input: CliInput, globals: Globals): Context {
  const { stdout, stderr, env } = input;
  const sink = {
    write: (text: string) => void stderr.write(inLocale(env)(text)),
    isTerminal: stderr.isTerminal && env["TERM"] !== "dumb",
    columns: stderr.columns,
  };
  return new Context({
    globals,
    cwd: input.cwd,
    cwdProblem: input.cwdProblem,
    env,
    signal: input.signal,
    style: makeStyle(wantsColour(stdout.isTerminal, env)),
    errorStyle: makeStyle(wantsColour(stderr.isTerminal, env)),
    progress: makeProgress(sink, { mode: globals.progress, quiet: globals.quiet }),
    say: sink.write,
    openLibrary: input.openLibrary,
    commands: COMMANDS,
    setCommandRunning: input.setCommandRunning ?? (() => undefined),
  });
}

async function jsonData(outcome: Outcome): Promise<unknown> {
  if (outcome.content === undefined || outcome.contentData === undefined) return outcome.data;
  const pieces: Uint8Array[] = [];
  for await (const piece of outcome.content) pieces.push(piece);
  return outcome.contentData(Buffer.concat(pieces));
}

/** True if the command's text is printed: with `-q` only for commands with `answers`. */
function isAnswered({ definition, globals }: Parsed & { kind: "call" }): boolean {
  return !globals.quiet || definition.answers === true;
}

async function printOutcome(input: CliInput, context: Context, outcome: Outcome): Promise<void> {
  const { content, paged } = outcome;
  const { env, setCommandRunning } = context;
  const pager = paged === true && input.stdout.isTerminal ? await import("../pager.ts") : null;
  if (content !== undefined && (await pager?.streamInPager(content, env, setCommandRunning)) !== true) {
    for await (const piece of content) {
      if (input.stdout.closed) break;
      await input.stdout.write(piece);
    }
  }
  const given = (await outcome.text?.()) ?? "";
  const text = outcome.verbatim === true ? given : inLocale(env)(given);
  if (text !== "") {
    const whole = text.endsWith("\n") ? text : `${text}\n`;
    if ((await pager?.showInPager(whole, env, setCommandRunning)) !== true) await input.stdout.write(whole);
  }
  if (outcome.error !== undefined) await explain(input, outcome.error);
}

interface FailingCall {
  command: string | null;
  json: boolean;
  warnings: readonly string[];
}

async function fail(input: CliInput, failing: FailingCall, error: CairnError): Promise<number> {
  if (failing.json) {
    const { command, warnings } = failing;
    await input.stdout.write(
      printEnvelope(makeEnvelope({ command, exitStatus: error.exitStatus, data: null, warnings, error })),
    );
  } else {
    await explain(input, error, failing.command);
  }
  return error.exitStatus;
}

const PARTLY = "partly done (exit 10): the output lists what was left out";

/** Milliseconds after a stop before people are told; most calls end sooner. */
const TELL_OF_STOP_MS = 300;
/** A system call that takes as long waits for a server that may never answer. */
const SILENT_MS = 10_000;
const LOOK_MS = 2000;
const SILENT_HINT =
  "this command goes on when it answers. See if its server or program runs; Ctrl-C ends the command, or else `umount -f` of the mount does";
const STOPPING = "stopping safely: the step in progress is finished or rolled back; press Ctrl-C again to end at once";
const STOPPING_BACKUP =
  "stopping safely: the step in progress is finished or rolled back, with up to 10 s for a server's answer; press Ctrl-C again to end at once";
const STOPPED = "nothing is left half done; `cairn status` shows the folder's state";
const STOPPED_BACKUP =
  "run the command again: data that is already stored is reused; `cairn backup list` shows the snapshots";

const LOOKS_OF_BACKUP = new Set("list find diff stats show cat verify".split(" "));
const STOPPED_LOOK = "the command only reads: nothing was changed";

function stoppedHint(name: string): string {
  const [command = "", verb = ""] = name.split(" ");
  if (command !== "backup") return STOPPED;
  return LOOKS_OF_BACKUP.has(verb) ? STOPPED_LOOK : STOPPED_BACKUP;
}

async function explain(input: CliInput, error: CairnError, command: string | null = null): Promise<void> {
  const style = makeStyle(wantsColour(input.stderr.isTerminal, input.env));
  // Each item of a list has its own line. Further lines are indented, so that none looks like a line of the command itself.
  const lines = error.message.split("\n").map(printable).join("\n  ");
  let text = `cairn: ${style.red(lines)}\n`;
  if (error.code === "interrupted" && error.hint === undefined)
    text += `  ${stoppedHint(command ?? commandNameOf(input.argv) ?? "")}\n`;
  if (error.hint !== undefined) text += `  ${printable(error.hint)}\n`;
  if (error.code === "internal" && (input.env["CAIRN_DEBUG"] ?? "") !== "")
    text += `${error.cause instanceof Error ? error.cause.stack : error.stack}\n`;
  await input.stderr.write(inLocale(input.env)(text));
}
