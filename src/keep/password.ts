import { execFile, type ExecFileException } from "node:child_process";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { isAgeFile } from "../crypto/age.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { formerPassword, passwordOfFile, trimPassword } from "../formats/restic/password-bytes.ts";
import { readRegular } from "../fs/regular-file.ts";

/** Sources of a password; the first that is set counts. */
export interface PasswordSources {
  file?: string | undefined;
  command?: string | undefined;
  /** A file with age identities, for an encrypted password file; else `CAIRN_AGE_IDENTITY`. */
  identity?: string | undefined;
  /**
   * The variable without its prefix, for example `TO_PASSWORD`, for the value, `TO_PASSWORD_FILE` and
   * `TO_PASSWORD_COMMAND`. The option of `file` has the same name, and so has that of `command` for `PASSWORD`.
   */
  variable: string;
  env: Readonly<Record<string, string | undefined>>;
  cwd: string;
  /** Question on a terminal, for example `password of /srv/backups`. */
  question: string;
  /** Asks a person at a terminal. Absent: nobody can be asked. */
  ask?: ((question: string, signal: AbortSignal | undefined) => Promise<Buffer>) | undefined;
  /** True: asks twice, for a new password. */
  twice?: boolean;
  signal?: AbortSignal;
}

export interface GivenPassword {
  readonly bytes: Uint8Array;
  /** The password as earlier versions read it; null if it is the same. */
  readonly former: string | null;
}

const PREFIXES = ["CAIRN_", "RESTIC_"];
const MAX_BYTES = 1024 * 1024;

/**
 * Reads a repository's password: from a file, a command, CAIRN_… or RESTIC_… variables, or the terminal. Removes white
 * space at both ends of files and output, as restic does. Throws `usage` if there is no password.
 */
export async function readPassword(sources: PasswordSources): Promise<GivenPassword> {
  const { file, command, variable, env } = sources;
  if (file !== undefined && command !== undefined)
    throw usage("give the password by a file or by a command, not by both");
  if (file !== undefined) return fromFile(file, sources);
  if (command !== undefined) return fromCommand(command, sources);
  for (const prefix of PREFIXES) {
    const name = `${prefix}${variable}`;
    const value = env[name];
    if (value !== undefined && value !== "") return fromVariable(name, value);
    const named = env[`${name}_FILE`];
    if (named !== undefined && named !== "") return fromFile(named, sources);
    const line = env[`${name}_COMMAND`];
    if (line !== undefined && line !== "") return fromCommand(line, sources);
  }
  if (sources.ask !== undefined) return fromPerson(sources, sources.ask);
  throw usage(`the ${sources.question} is needed, and there is no terminal to ask for it`, whereFrom(variable));
}

/** Names the options and variables of this password: a line may need two passwords. */
function whereFrom(variable: string): string {
  const option = `--${variable.toLowerCase().replaceAll("_", "-")}`;
  return `use ${option}-file FILE, or the variable CAIRN_${variable}, CAIRN_${variable}_FILE or CAIRN_${variable}_COMMAND`;
}

async function fromFile(file: string, { cwd, env, identity, variable }: PasswordSources): Promise<GivenPassword> {
  const path = resolve(cwd, file);
  let bytes: Uint8Array;
  try {
    bytes = readRegular(path, { named: true });
  } catch (error) {
    if (error instanceof CairnError) throw usage(`the password file ${error.message}`, whereFrom(variable));
    throw toCairnError(error, `reading the password file ${path}`);
  }
  if (!isAgeFile(bytes)) return checked(bytes, passwordOfFile(bytes), path, variable);
  const keys = identity ?? env["CAIRN_AGE_IDENTITY"];
  if (keys === undefined || keys === "")
    throw usage(
      `the password file ${path} is encrypted with age`,
      "use --age-identity FILE, or the variable CAIRN_AGE_IDENTITY",
    );
  const { openAgePassword } = await import("../backup/age-password.ts");
  const password = await openAgePassword(bytes, { file: path, identity: resolve(cwd, keys) });
  return checked(password, trimPassword(password), path, variable);
}

/** `all`: the bytes before white space was removed. */
function checked(all: Uint8Array, bytes: Uint8Array, from: string, variable: string): GivenPassword {
  if (all.length > MAX_BYTES) throw usage(`the password from ${from} is longer than 1 MiB`, whereFrom(variable));
  if (bytes.length === 0) throw usage(`the password from ${from} is empty`, whereFrom(variable));
  return { bytes, former: formerPassword(all, bytes) };
}

/** Reads the variable's bytes from /proc, because Node's text loses bytes that are not UTF-8. */
function fromVariable(name: string, value: string): GivenPassword {
  if (!value.includes("\ufffd")) return { bytes: Buffer.from(value), former: null };
  let all: Buffer;
  try {
    all = readFileSync("/proc/self/environ");
  } catch {
    throw usage(`the value of the variable ${name} is not UTF-8`, "put the password into a file: --password-file FILE");
  }
  const key = Buffer.from(`${name}=`);
  for (let at = 0; at < all.length;) {
    const end = all.indexOf(0, at);
    const line = all.subarray(at, end < 0 ? all.length : end);
    const bytes = line.subarray(key.length);
    if (line.subarray(0, key.length).equals(key) && bytes.toString("utf8") === value)
      return { bytes, former: Buffer.from(value).equals(bytes) ? null : value };
    at += line.length + 1;
  }
  // The variable was set inside this process, as this text.
  return { bytes: Buffer.from(value), former: null };
}

/** Runs the command by the shell. Its stderr goes to the terminal and never into a message, because it may have the secret. */
async function fromCommand(command: string, sources: PasswordSources): Promise<GivenPassword> {
  const { cwd, env, signal, variable } = sources;
  const output = await new Promise<Buffer>((done, fail) => {
    const child = execFile(
      "/bin/sh",
      ["-c", command],
      {
        cwd,
        env: env as NodeJS.ProcessEnv,
        encoding: "buffer",
        maxBuffer: MAX_BYTES,
        ...(signal === undefined ? {} : { signal }),
      },
      (error, stdout) => {
        if (error === null) done(stdout);
        else fail(commandFailure(error));
      },
    );
    // A command that reads stdin gets its end, instead of waiting for input.
    child.stdin?.end();
    child.stderr?.pipe(process.stderr);
  });
  return checked(output, trimPassword(output), "the command", variable);
}

function commandFailure({ code, signal }: ExecFileException): CairnError {
  const status = typeof code === "number" ? `ended with status ${code}` : null;
  const how = status ?? (signal ? `was ended by ${signal}` : "could not be run");
  return new CairnError("usage", `the password command ${how}`, {
    hint: "see its stderr output above",
  });
}

async function fromPerson(
  { question, variable, twice, signal }: PasswordSources,
  ask: NonNullable<PasswordSources["ask"]>,
): Promise<GivenPassword> {
  const first = await ask(`${question}: `, signal);
  if (first.length === 0) throw usage("the password is empty", whereFrom(variable));
  if (twice === true && !first.equals(await ask("repeat the password: ", signal)))
    throw usage("the two passwords differ");
  const text = first.toString("utf8");
  return { bytes: first, former: Buffer.from(text).equals(first) ? null : text };
}

function usage(message: string, hint?: string): CairnError {
  return new CairnError("usage", message, hint === undefined ? {} : { hint });
}
