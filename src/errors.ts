/**
 * The error class, the words of its hints, and the table from code to exit status and HTTP status. `docs/errors.md` is
 * generated from this file; a test compares both.
 */

export interface ErrorRow {
  readonly exit: number;
  readonly http: number;
  readonly retryable: boolean;
  /** The case in which the code is used, for docs/errors.md. */
  readonly when: string;
}

function row(exit: number, http: number, when: string, retryable = false): ErrorRow {
  return { exit, http, retryable, when };
}

export const ERROR_TABLE = {
  internal: row(1, 500, "an unexpected failure: a defect of Cairn"),
  usage: row(2, 400, "an argument, option or value is not understood"),
  invalid_id: row(2, 400, "an id is malformed"),
  unsupported: row(
    2,
    501,
    "this build, platform or file system does not support the operation, for example a very long name",
  ),
  not_found: row(3, 404, "no such save point, workspace, path or file"),
  not_a_workspace: row(3, 404, "neither the folder nor a folder above it is a workspace"),
  nothing_to_undo: row(3, 404, "there is no restore or undo that an undo could revert"),
  ambiguous: row(4, 409, "a prefix, tag or name matches more than one point, snapshot or other thing"),
  already_exists: row(4, 409, "the target exists already"),
  stale_plan: row(4, 409, "the workspace or repository has changed since the plan was made"),
  overdue: row(4, 503, "the last save, backup or proof is older than its limit"),
  detached: row(4, 409, "head is not the latest point, and the caller asked to fail in that case"),
  conflict: row(4, 409, "two changes contradict each other"),
  busy: row(5, 423, "another process holds the lock", true),
  no_daemon: row(5, 503, "the operation needs a daemon, and no daemon answers", true),
  damaged: row(6, 500, "stored bytes differ from the bytes that were written"),
  newer_version: row(7, 409, "a file has a newer format version than this program knows"),
  refused: row(7, 403, "refused for safety; if an option overrides the refusal, the hint names the option"),
  no_space: row(8, 507, "the disk or the quota is full"),
  permission: row(9, 403, "the operating system or a daemon does not allow the operation"),
  incomplete: row(10, 207, "done, except for the entries that are listed"),
  interrupted: row(130, 499, "stopped by a signal or by the caller"),
  io: row(1, 500, "the operating system, a server or a command failed a read or a write", true),
  wrong_password: row(9, 403, "no key of the repository opens with this password"),
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERROR_TABLE;

/** A call or options, in two forms: as typed in a shell, and as a program writes it. */
export interface Part {
  readonly typed: string;
  readonly called: string;
  /** the verbs in the call */
  readonly verbs?: readonly string[];
  readonly options?: Readonly<Record<string, unknown>>;
}

/** Text with calls and options, which crosses threads and sockets unchanged. */
export type Hint = string | readonly (string | Part)[];

/** Returns the hint as text. `word` formats each call and option; by default as people type them. */
export function worded(hint: Hint, word: (part: Part) => string = ({ typed }) => typed): string {
  return typeof hint === "string" ? hint : hint.map((part) => (typeof part === "string" ? part : word(part))).join("");
}

export interface ErrorOptions {
  /** Advice, in the imperative. */
  hint?: Hint | undefined;
  cause?: unknown;
  /** Machine-readable facts, for example the holder of a lock. */
  details?: Record<string, unknown> | undefined;
}

const ADVICE = new WeakMap<CairnError, Hint>();

/** Returns the error's hint with its parts, to format or pass on. `hint` itself is the text for people who type commands. */
export function adviceOf(error: CairnError): Hint | undefined {
  return ADVICE.get(error) ?? error.hint;
}

/** Every failure that Cairn reports. `message` names the operation, its object, and the expected and actual values. */
export class CairnError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: Record<string, unknown> | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "CairnError";
    this.code = code;
    this.hint = options.hint === undefined ? undefined : worded(options.hint);
    if (typeof options.hint === "object") ADVICE.set(this, options.hint);
    this.details = options.details;
  }

  get retryable(): boolean {
    return ERROR_TABLE[this.code].retryable;
  }

  get exitStatus(): number {
    return ERROR_TABLE[this.code].exit;
  }
}

/** Damage of a file, with details that name the place in it. */
export function damaged(message: string, details: Record<string, unknown> = {}): CairnError {
  return new CairnError("damaged", message, { details });
}

const ERRNO_CODES: Record<string, ErrorCode> = {
  ENOENT: "not_found",
  ENOTDIR: "not_found",
  EEXIST: "already_exists",
  EACCES: "permission",
  EPERM: "permission",
  EROFS: "permission",
  ENOSPC: "no_space",
  EDQUOT: "no_space",
  ENAMETOOLONG: "unsupported",
};

/** Errors of Linux that Node does not name: it gives them the code `Unknown system error -116`. */
const UNNAMED: ReadonlyMap<number, readonly [name: string, words: string]> = new Map([
  [37, ["ENOLCK", "no locks available"]],
  [52, ["EBADE", "the file server refused the exchange"]],
  [64, ["ENONET", "the machine is not on the network"]],
  [67, ["ENOLINK", "the link to the file server is severed"]],
  [70, ["ECOMM", "communication error"]],
  [74, ["EBADMSG", "the stored data does not match its checksum"]],
  [116, ["ESTALE", "stale file handle"]],
  [117, ["EUCLEAN", "the file system is damaged"]],
  [122, ["EDQUOT", "disk quota exceeded"]],
  [123, ["ENOMEDIUM", "no medium found"]],
  [126, ["ENOKEY", "the key of encrypted files is not loaded"]],
  [127, ["EKEYEXPIRED", "the key has expired"]],
  [133, ["EHWPOISON", "a memory page has a hardware error"]],
]);

/** The name of an errno that neither Node nor `node:os` may know; undefined if this table lacks it, too. */
export function unnamedErrno(value: number): string | undefined {
  return UNNAMED.get(value)?.[0];
}

/** The name of a system error, for example `ENOENT`; also of one that Node does not name. */
export function errnoOf(error: unknown): string | undefined {
  const failed = error as { code?: unknown; errno?: unknown } | null;
  if (typeof failed?.code !== "string") return undefined;
  const isNamed = failed.code !== "" && !failed.code.startsWith("Unknown system error");
  return isNamed ? failed.code : unnamedErrno(Math.abs(Number(failed.errno)));
}

/** Returns the code for a system error's name, for example `ENOSPC` → `no_space`. */
export function codeOfErrno(name: string | undefined): ErrorCode {
  return (name !== undefined && ERRNO_CODES[name]) || "io";
}

const MEMORY_HINT = "give the process more memory, or use fewer jobs at once";
const GONE_HINT = "mount the file system again, then try again: the program that served the mount has ended";
const STALE_HINT =
  "mount the file system again, then try again: its server has removed or replaced the folder that is mounted";
const PACKAGE_HINT =
  "install the package again; if your program is bundled into one file, exclude cairnstate from the bundle: `--external:cairnstate` with esbuild, `external` with other bundlers";
const MODEL_HINT = "run the program without `--permission`: with Node's permission model no write can be made durable";
const FULL_HINT = "free some space there, or raise the user's disk quota, then try again";

/** Errors of exhausted resources: the same call may succeed a moment later. By name, with a remedy. */
export const RAN_OUT: ReadonlyMap<string, string> = new Map([
  ["EMFILE", "raise the process's limit of open files (`ulimit -n`), or use fewer jobs at once"],
  ["ENFILE", "end some programs, or raise fs.file-max: the system's limit of open files is reached"],
  ["ENOMEM", MEMORY_HINT],
]);

/**
 * True for the error of a mount whose program has ended, for example of a FUSE file system: the mount exists, but its
 * content is not reachable.
 */
export function isMountDead(error: unknown): boolean {
  return (error as { code?: unknown } | null)?.code === "ENOTCONN";
}

/** Returns the advice for a system error, if its name is enough. */
export function hintOfErrno(name: string): string | undefined {
  if (codeOfErrno(name) === "no_space") return FULL_HINT;
  if (name === "ESTALE") return STALE_HINT;
  return name === "ENOTCONN" ? GONE_HINT : RAN_OUT.get(name);
}

/** Turns any thrown value into a CairnError: system errors keep their meaning, others become `internal`. */
export function toCairnError(error: unknown, doing?: string): CairnError {
  if (error instanceof CairnError) return error;
  // The first failure is the cause; a failure of the cleanup after it is not.
  if (error instanceof SuppressedError) return toCairnError(error.suppressed, doing);
  const { code: given, errno, syscall, path } = (error ?? {}) as Partial<NodeJS.ErrnoException>;
  const unnamed = given === errnoOf(error) ? undefined : UNNAMED.get(Math.abs(Number(errno)));
  const name = unnamed?.[0] ?? given;
  const told = error instanceof Error ? error.message : String(error);
  // Node writes: Unknown system error -116: Unknown system error -116, stat '/a'
  const whole =
    unnamed === undefined
      ? told
      : told.replace(/^(?:Unknown system error -\d+: )*Unknown system error -\d+/, unnamed.join(": "));
  // Node names the path of a failed call, which may have thousands of characters.
  const message = whole.replaceAll(/'([^']{200})[^']{300,}([^']{100})'/g, "'$1…$2'");
  const text = doing === undefined ? message : `${doing}: ${message}`;
  if ((error as { name?: unknown } | null)?.name === "AbortError") {
    return new CairnError("interrupted", text, { cause: error });
  }
  if (name === "ENOENT" && syscall === "mkdir" && path !== undefined) {
    const above = path.slice(0, path.lastIndexOf("/"));
    const lacking = `the folder ${above} does not exist`;
    return new CairnError("not_found", doing === undefined ? lacking : `${doing}: ${lacking}`, {
      cause: error,
      hint: "make that folder first",
    });
  }
  // An error of Node's `rmSync` has no name if the system's errno is unusual.
  if (name === "" && typeof errno === "number") {
    const code = /, Unknown error: read-only file system\b/i.test(message) ? codeOfErrno("EROFS") : "io";
    return new CairnError(code, text.replace(", Unknown error: ", `${syscall}: `), { cause: error });
  }
  if (typeof name === "string" && /^E[A-Z0-9]+$/.test(name)) {
    const code = codeOfErrno(name);
    const hint = hintOfErrno(name);
    return new CairnError(code, text, { cause: error, hint });
  }
  if (typeof name === "string" && name.startsWith("Unknown system error"))
    return new CairnError("io", text, { cause: error });
  if (name === "MODULE_NOT_FOUND" || name === "ERR_MODULE_NOT_FOUND")
    return new CairnError("unsupported", `a file of the package cairnstate is missing: ${text}`, {
      cause: error,
      hint: PACKAGE_HINT,
    });
  if (name === "ERR_ACCESS_DENIED") return new CairnError("unsupported", text, { cause: error, hint: MODEL_HINT });
  const isMemory = error instanceof RangeError && /allocation failed|(?:could not|cannot) allocate/i.test(message);
  if (isMemory || name === "ZSTD_error_memory_allocation" || name === "ERR_ZLIB_INITIALIZATION_FAILED")
    return new CairnError("io", text, { cause: error, hint: MEMORY_HINT });
  return new CairnError("internal", text, { cause: error });
}

/** Copies an error with another message or hint; the other fields stay. Default of `cause`: the error itself. */
export function reworded(
  error: CairnError,
  words: { message?: string; hint?: Hint | undefined; cause?: unknown },
): CairnError {
  const { code, details } = error;
  const { message = error.message, hint = adviceOf(error), cause = error } = words;
  return new CairnError(code, message, { cause, hint, details });
}

/** True if a disk could not read a sector: its content is lost, unless a repeated read succeeds. */
export function isBadSector({ code, cause }: CairnError): boolean {
  const failed = cause as { code?: unknown; syscall?: unknown } | undefined;
  return code === "io" && failed?.code === "EIO" && failed.syscall !== "write";
}

/**
 * True if the bytes read differ from the bytes written. An error of a storage that is away, busy or not readable by
 * this user proves no damage; a bad sector does.
 */
export function tellsOfDamage(error: CairnError): boolean {
  return error.code === "damaged" || error.code === "not_found" || isBadSector(error);
}

/** True if a place is read-only, not writable by this user, or full. Readers may continue. */
export function cannotBeWritten({ code }: CairnError): boolean {
  return code === "permission" || code === "no_space";
}

/** Throws `interrupted` if the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new CairnError("interrupted", "stopped by the caller", { cause: signal.reason });
}

/** Methods of the verbs. `verbs/index.ts` adds its tables, so that the compiler checks every call and option in a hint. */
// oxlint-disable-next-line typescript/no-empty-object-type
export interface VerbTables {}

type Table = VerbTables[keyof VerbTables];
type NamesIn<T> = T extends T ? keyof T & string : never;
type GivenIn<T, V extends string> = T extends Record<V, (...given: infer G) => unknown> ? G : never;
/** Makes the arguments of a call in a hint optional. */
type Loose<G> = { [I in keyof G]?: Partial<G[I]> };
type VerbName = NamesIn<Table>;
type Given<V extends VerbName> = Loose<GivenIn<Table, V>> & readonly unknown[];
/** Names of a verb's options: the members of its last argument. */
type LastOf<G> = G extends readonly [...unknown[], infer O] ? keyof O : never;
type OptionsOf<F> = F extends (...given: infer G) => unknown ? LastOf<Required<G>> : never;
type OptionIn<T> = T extends T ? OptionsOf<T[keyof T]> : never;
type OptionName = Exclude<OptionIn<Table> & string, keyof string>;

/** Tag of a template. Returns a hint: text with calls and options in it. */
export function advice(texts: TemplateStringsArray, ...given: readonly (Hint | number)[]): Hint {
  return texts.flatMap((text, i) => {
    const before = i === 0 ? [] : given[i - 1]!;
    return [...(typeof before === "object" ? before : [`${before}`]), text];
  });
}

/** Words that differ between commands and programs. */
export function either(typed: string, called: Hint): Hint {
  const verbs = [called].flat().flatMap((part) => (typeof part === "string" ? [] : (part.verbs ?? [])));
  return [{ typed, called: worded(called, (part) => part.called), verbs }];
}

/** Returns the command in quotes, and the verb's call with its arguments. A verb alone is the command of that name. */
export function call(verb: VerbName): Hint;
export function call<V extends VerbName>(command: string, verb: V, ...given: Given<V>): Hint;
export function call(command: string, verb: string = command, ...given: readonly unknown[]): Hint {
  const last = given.at(-1);
  const options = typeof last === "object" && !Array.isArray(last) ? { ...last } : {};
  return [
    { typed: `\`cairn ${command}\``, called: `\`${verb}(${given.map(shown).join(", ")})\``, verbs: [verb], options },
  ];
}

/** {@link call} with the command as a line to copy, without quotes. */
export const line: typeof call = (command: string, ...given: readonly unknown[]) =>
  either(`cairn ${command}`, call(...([command, ...given] as unknown[] as [never])));

/** The most common hint: `see` and a call. */
export const see: typeof call = (...given: readonly unknown[]) => advice`see ${call(...(given as [never]))}`;

/** An option by its name, or options with values. `typed`: the words of the command line, if they differ. */
export function option(of: OptionName | { readonly [O in OptionName]?: unknown }, typed?: string): Hint {
  if (typeof of === "string") return [{ typed: typed ?? flag(of), called: `\`${of}\``, options: { [of]: true } }];
  const words = Object.entries(of).map(([name, value]) => flag(name, value));
  return [{ typed: typed ?? words.join(" "), called: `\`${shown(of).slice(2, -2)}\``, options: of }];
}

/** Options whose name on the command line differs from the library's. */
const FLAGS: Record<string, string> = { controlDirectory: "control-dir", hosts: "host", paths: "path", tags: "tag" };

function flag(name: string, value: unknown = true): string {
  const text = FLAGS[name] ?? name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return value === true ? `--${text}` : value === false ? `--no-${text}` : `--${text} ${String(value)}`;
}

/** A value that the reader fills in, by name. Every argument accepts it. */
export const word = (name: string): never => Symbol(name) as never;

function shown(value: unknown): string {
  if (typeof value === "symbol") return value.description!;
  if (Array.isArray(value)) return `[${value.map(shown).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([name, member]) => [name, shown(member)] as const);
  return `{ ${members.map(([name, text]) => (text === name ? name : `${name}: ${text}`)).join(", ")} }`;
}
