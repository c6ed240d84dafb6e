import { spawn } from "node:child_process";
import fs from "node:fs";
import { stripVTControlCharacters } from "node:util";
import { CairnError, type ErrorCode, throwIfAborted } from "../errors.ts";
import { besideTerminal, findProgram, withPipes } from "../fs/child-pipes.ts";
import { printablePath } from "../fs/paths/safe-path.ts";

/** The only place that starts JuiceFS's own program. */

export const JUICEFS_MISSING = {
  reason: "the program juicefs is not in any folder of PATH",
  hint: "install JuiceFS's client, 1.1 or newer, or add its folder to PATH",
} as const;

/** JuiceFS clones some hundred entries a second on a slow metadata engine; for slower folders, reading into the store is better. */
const LIMIT_MS = 300_000;
/** Milliseconds for which output is still read after the program's end; a child that it left behind may hold the pipe open. */
const DRAIN_MS = 200;
const MOST_SAID = 16_384;
const MOST_SHOWN = 400;

/** Error codes by the program's messages; any other message means that the folder cannot be held this way. */
const MEANINGS: readonly (readonly [said: RegExp, code: ErrorCode])[] = [
  [/no space left on device|quota exceeded/i, "no_space"],
  [/permission denied|operation not permitted/i, "permission"],
];

/** The `juicefs` of a search path; null if there is none. */
export function findJuicefs(searchPath?: string): string | null {
  return findProgram("juicefs", searchPath);
}

export interface JuicefsCall {
  program: string;
  /** how long it may take, in milliseconds; 300 000 unless told */
  limitMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Runs `juicefs clone -p FROM TO` (absolute, raw bytes); then `to` is complete as far as JuiceFS knows. If it is
 * stopped, the clone may still appear, unless the parent directory of `to` is removed. Throws `unsupported` with the
 * program's message, or if it takes too long; `permission`, `no_space`, `interrupted`, `io`.
 */
export async function runJuicefsClone(from: Uint8Array, to: Uint8Array, call: JuicefsCall): Promise<void> {
  throwIfAborted(call.signal);
  const ended = await runToEnd(call, ["clone", "-p", argument(from), argument(to)]);
  throwIfAborted(call.signal);
  const said = whatItSaid(ended.said);
  if (ended.error !== null) throw failed(`it was not started: ${ended.error}`, "unsupported");
  if (ended.late) throw failed(`it did not end within ${Math.round(limitOf(call) / 1000)} s`, "unsupported");
  if (ended.code !== 0) {
    const code = MEANINGS.find(([pattern]) => pattern.test(said))?.[1] ?? "unsupported";
    const how = ended.code === null ? `a signal ended it (${ended.signal})` : `exit status ${ended.code}`;
    throw failed(`${how}${said === "" ? "" : `: ${said}`}`, code);
  }
  if (fs.lstatSync(Buffer.from(to), { throwIfNoEntry: false })?.isDirectory() !== true)
    throw failed(`it reported success, but there is no clone at ${printablePath(to)}`, "unsupported");
}

function failed(what: string, code: ErrorCode): CairnError {
  const hint = "run `juicefs clone -p` by hand in that file system to see more";
  return new CairnError(code, `juicefs clone: ${what}`, code === "unsupported" ? { hint } : {});
}

function argument(raw: Uint8Array): string {
  const text = Buffer.from(raw).toString("utf8");
  if (Buffer.from(text, "utf8").equals(raw)) return text;
  throw new CairnError(
    "unsupported",
    `the path ${printablePath(raw)} is not UTF-8, and juicefs clone cannot be given it`,
  );
}

function limitOf({ limitMs }: JuicefsCall): number {
  return limitMs ?? LIMIT_MS;
}

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  said: string;
  /** reason for which `juicefs` could not be started; null if it was started */
  error: string | null;
  /** it was killed for taking too long */
  late: boolean;
}

/** Rejects only if no file descriptors are left. Passes only the needed environment variables on. */
async function runToEnd(call: JuicefsCall, words: readonly string[]): Promise<Ended> {
  const { PATH, HOME, TMPDIR } = process.env;
  const env = { PATH, HOME, TMPDIR, LC_ALL: "C" };
  const child = withPipes(
    spawn(call.program, words, { cwd: "/", stdio: ["ignore", "ignore", "pipe"], env, ...besideTerminal() }),
    "juicefs clone",
  );
  const ended = Promise.withResolvers<Ended>();
  let said = "";
  let late = false;
  const kill = (): void => {
    child.kill("SIGKILL");
    // A process that hangs in a call to the file system ends when the call returns.
    setTimeout(() => end({}), DRAIN_MS).unref();
  };
  const timer = setTimeout(() => {
    late = true;
    kill();
  }, limitOf(call));
  call.signal?.addEventListener("abort", kill, { once: true });
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-MOST_SAID)));
  const end = (how: Partial<Ended>): void => {
    clearTimeout(timer);
    call.signal?.removeEventListener("abort", kill);
    child.stderr.destroy();
    child.unref();
    ended.resolve({ code: null, signal: null, error: null, said, late, ...how });
  };
  child.once("error", (error) => {
    // A failed kill is reported here too.
    if (child.pid === undefined) end({ error: error.message });
  });
  child.once("close", (code, signal) => end({ code, signal }));
  child.once("exit", (code, signal) => setTimeout(() => end({ code, signal }), DRAIN_MS).unref());
  return ended.promise;
}

/** The end of the output on one line, without terminal controls and without possible passwords in addresses. */
function whatItSaid(said: string): string {
  const plain = printablePath(stripVTControlCharacters(said).replace(/\s+/g, " ").trim());
  return plain.replace(/(\w:\/\/)[^\s/@]*@/g, "$1…@").slice(-MOST_SHOWN);
}
