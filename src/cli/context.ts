import { existsSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve } from "node:path";
import { CairnError, reworded, toCairnError } from "../errors.ts";
import type { CairnLibrary, CallOptions, Client, GuardName, PathInput } from "../contract/index.ts";
import type { CommandTable } from "./definitions.ts";
import { parseBase64, usage } from "./input.ts";
import type { ProgressMode, ProgressReporter } from "./progress.ts";
import { printable, shellQuote } from "./render/format.ts";
import type { Style } from "./render/style.ts";

export interface Globals {
  /** The value of `-C`, unchanged. */
  directory?: string;
  json: boolean;
  quiet: boolean;
  progress: ProgressMode;
  controlDirectory?: string;
  lockTimeoutMs?: number;
}

export interface ContextParts {
  globals: Globals;
  /** The current folder, or its last path if it was removed; null if unknown. */
  cwd: string | null;
  /** The reason why nothing can be named relative to the current folder. */
  cwdProblem?: string | undefined;
  env: Record<string, string | undefined>;
  signal: AbortSignal;
  style: Style;
  errorStyle: Style;
  progress: ProgressReporter;
  say: (text: string) => void;
  openLibrary: () => Promise<CairnLibrary>;
  commands: CommandTable;
  /** Sets the process id of the running command of `run`: that command handles signals meanwhile. */
  setCommandRunning: (pid: number | null) => void;
}

const NAME_ABSOLUTE = "give an absolute path, or change to an existing folder";

/** Context of one call of the command line. */
export class Context {
  readonly globals: Globals;
  readonly env: Record<string, string | undefined>;
  readonly signal: AbortSignal;
  readonly style: Style;
  readonly errorStyle: Style;
  readonly progress: ProgressReporter;
  readonly commands: CommandTable;
  readonly setCommandRunning: (pid: number | null) => void;
  readonly #parts: ContextParts;
  #warnings: string[] | null = [];
  #library: Promise<CairnLibrary> | undefined;
  #client: Client | undefined;
  /** The folder that the command named with its argument DIR. */
  #opened: string | undefined;

  constructor(parts: ContextParts) {
    this.globals = parts.globals;
    this.env = parts.env;
    this.signal = parts.signal;
    this.style = parts.style;
    this.errorStyle = parts.errorStyle;
    this.progress = parts.progress;
    this.commands = parts.commands;
    this.setCommandRunning = parts.setCommandRunning;
    this.#parts = parts;
  }

  /** Returns the path of the current folder, or its last path. Throws `not_found` if it is unknown. */
  get cwd(): string {
    const { cwd, cwdProblem } = this.#parts;
    if (cwd !== null) return cwd;
    throw new CairnError("not_found", cwdProblem ?? "the current folder is unknown", { hint: NAME_ABSOLUTE });
  }

  /** Makes a given name absolute. Throws `not_found` for a relative name if the current folder is gone. */
  absolute(path: string): string {
    const { cwdProblem } = this.#parts;
    if (cwdProblem === undefined || isAbsolute(path)) return resolve(this.#parts.cwd ?? "/", path);
    throw new CairnError("not_found", `${path} is a relative path, and ${cwdProblem}`, { hint: NAME_ABSOLUTE });
  }

  /**
   * Returns the absolute path of a file that is written or looked for by its exact name. Throws `usage` if the name is
   * not UTF-8, because arguments are text and would name another file.
   */
  place(path: string): string {
    const cwd = this.#parts.cwd;
    if (!isAbsolute(path) && cwd !== null && isLost(cwd))
      throw usage(
        `the name of the current folder, ${printable(cwd)}, is not UTF-8, so relative paths cannot be used`,
        "give an absolute path, or change to another folder",
      );
    const absolute = this.absolute(path);
    if (isLost(absolute)) this.requireText(path);
    return absolute;
  }

  /** Throws `usage` for a name that lost bytes because it is not UTF-8. */
  requireText(name: string): void {
    if (!name.includes(REPLACEMENT)) return;
    throw usage(
      `the name ${printable(name)} is not UTF-8, and cannot be passed unchanged`,
      "use a name that is UTF-8, for example a symbolic link to it",
    );
  }

  library(): Promise<CairnLibrary> {
    this.#library ??= this.#parts.openLibrary();
    return this.#library;
  }

  callOptions(): CallOptions {
    const options: CallOptions = {
      signal: this.signal,
      onProgress: (progress) => this.progress.report(progress),
      onWarning: (message) => this.note(message),
    };
    if (this.globals.lockTimeoutMs !== undefined) options.lockTimeoutMs = this.globals.lockTimeoutMs;
    return options;
  }

  /** Prints a line for people on stderr. With `--json` adds it to `warnings[]`, or prints a line of JSON after those are printed. */
  note(message: string, isAlways = false): void {
    const { json, quiet } = this.globals;
    if (json && this.#warnings === null) this.#parts.say(`${printable(JSON.stringify({ warning: message }))}\n`);
    this.#warnings?.push(message);
    if (!json && (!quiet || isAlways)) this.diagnose(printable(message));
  }

  /** Returns the warnings for the answer, once. */
  takeWarnings(): string[] {
    const warnings = this.#warnings ?? [];
    this.#warnings = null;
    return warnings;
  }

  /** Prints a line for people on stderr, whatever the options are. */
  diagnose(line: string): void {
    this.progress.finish();
    this.#parts.say(`cairn: ${line}\n`);
  }

  /** The folder of `DIR` or `-C`, absolute; undefined without both. */
  chosenFolder(positional?: string): string | undefined {
    if (positional !== undefined && this.globals.directory !== undefined) {
      throw usage("the folder was given twice: as DIR and with -C", "give it once");
    }
    const chosen = positional ?? this.globals.directory;
    if (chosen === "") throw usage("the folder's name is empty");
    return chosen === undefined ? undefined : this.absolute(chosen);
  }

  /** The folder of `DIR` or `-C`, else the current folder. */
  folder(positional?: string): string {
    return this.chosenFolder(positional) ?? this.cwd;
  }

  /** Opens the workspace `DIR`, or the nearest one at or above `-C` or the current folder. Throws `not_a_workspace`. */
  async open(positional?: string, more: { released?: boolean } = {}): Promise<Client> {
    const library = await this.library();
    this.#opened = positional;
    const chosen = this.chosenFolder(positional) ?? (await library.find(this.cwd, this.callOptions()));
    try {
      return this.#hold(await library.open(chosen ?? this.cwd, { ...this.openOptions(), ...more }));
    } catch (error) {
      const above = await this.#aboveChosen(positional, error);
      if (above !== null) return this.#hold(await library.open(above, this.openOptions()));
      const isNone = chosen === null && this.globals.controlDirectory === undefined;
      if (!isNone || !(error instanceof CairnError) || error.code !== "not_a_workspace") throw error;
      // An error with details names the folder already.
      if (error.details !== undefined) throw error;
      throw reworded(error, { message: `neither ${this.cwd} nor a folder above it is a workspace` });
    }
  }

  /** Returns the workspace above `-C`, if `error` says that `-C` itself is an existing folder and no workspace; else null. */
  async #aboveChosen(positional: string | undefined, error: unknown): Promise<string | null> {
    const { directory, controlDirectory } = this.globals;
    if (positional !== undefined || directory === undefined || controlDirectory !== undefined) return null;
    const folder = this.absolute(directory);
    const { code, details } = toCairnError(error);
    // A renamed folder, for example, is a workspace of its own.
    const isNone = code === "not_a_workspace" ? details === undefined : details?.["guard"] === "nested";
    if (!isNone || statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) return null;
    return (await this.library()).find(folder, this.callOptions());
  }

  /**
   * Opens a workspace, or makes the folder one with these guards overridden and prints that. `before` is awaited before
   * that. A home directory that the caller named becomes a workspace, unless `guardsHome` is true. `at`: the folder, in place of `-C`.
   */
  async openOrInit(
    positional?: string,
    allow: readonly GuardName[] = [],
    {
      before,
      guardsHome = false,
      at,
    }: { before?: Promise<unknown> | undefined; guardsHome?: boolean; at?: string } = {},
  ): Promise<Client> {
    if (before !== undefined) {
      try {
        return await this.open(positional);
      } catch (error) {
        if (!this.#mayInit(error, positional)) throw error;
      }
      await before;
    }
    const library = await this.library();
    this.#opened = positional;
    const chosen = at ?? this.chosenFolder(positional);
    const folder = chosen ?? (await library.find(this.cwd, this.callOptions())) ?? this.cwd;
    const guards = chosen === undefined || guardsHome || allow.includes("home") ? allow : [...allow, "home" as const];
    const client = this.#hold(await this.#madeOrAbove(folder, positional, guards));
    const { path } = client.workspace;
    const { followedFrom: from } = client;
    // Printed even with --quiet: a cron job now works on another folder.
    if (from !== null)
      this.note(
        `the workspace ${printable(from)} was moved to ${printable(path)}: its save points now belong to the new path`,
        true,
      );
    if (client.created)
      this.note(
        `made ${path} a workspace (engine ${client.engineType}); its save points lie in ${client.controlDirectory}`,
      );
    return client;
  }

  async #madeOrAbove(folder: string, positional: string | undefined, allow: readonly GuardName[]): Promise<Client> {
    const library = await this.library();
    try {
      return await library.openOrInit(folder, { ...this.openOptions(), allow });
    } catch (error) {
      const above = await this.#aboveChosen(positional, error);
      if (above === null) throw error;
      return library.open(above, this.openOptions());
    }
  }

  /** True for an existing folder. A named control directory that does not know the folder is a mistake. */
  #mayInit(error: unknown, positional: string | undefined): boolean {
    if (!(error instanceof CairnError) || error.code !== "not_a_workspace") return false;
    const control = this.globals.controlDirectory;
    if (control !== undefined && existsSync(this.place(control))) return false;
    return existsSync(this.chosenFolder(positional) ?? this.cwd);
  }

  /** Returns options of calls that look for a workspace. */
  openOptions(): CallOptions & { controlDirectory?: string } {
    const options: CallOptions & { controlDirectory?: string } = this.callOptions();
    const control = this.globals.controlDirectory;
    if (control !== undefined) options.controlDirectory = this.place(control);
    return options;
  }

  #hold(client: Client): Client {
    this.#client = client;
    return client;
  }

  /** Returns a command line for the same workspace, ready to be copied. */
  commandLine(words: readonly string[], positional?: string): string {
    return ["cairn", ...this.placeWords(positional), ...words].map(shellQuote).join(" ");
  }

  /** Returns the options that name the same folder and control directory again. */
  placeWords(positional = this.#opened): string[] {
    const folder = positional ?? this.globals.directory;
    // The line may be run in another folder, and later, when a link leads elsewhere.
    const chosen = folder === undefined ? [] : ["-C", realIfText(this.absolute(folder))];
    const control = this.globals.controlDirectory;
    if (control !== undefined && existsSync(this.place(control))) chosen.push("--control-dir", control);
    return chosen;
  }

  /** PATH arguments and `--path-b64` as paths from the workspace's root. */
  workspacePaths(client: Client, paths: readonly string[], encoded: readonly string[]): PathInput[] {
    const root = client.workspacePath();
    return [
      ...paths.map((path) => toWorkspacePath(root, this.cwd, path)),
      ...encoded.map((text) => parseBase64(text, "--path-b64")),
    ];
  }

  async close(): Promise<void> {
    await this.#client?.close();
  }
}

/**
 * Returns a PATH argument as a path from the workspace's root. PATH is relative to the current folder, or to the root
 * if the current folder is outside the workspace (`-C`). Throws `usage` for a path outside.
 */
export function toWorkspacePath(root: string, cwd: string, path: string): string {
  if (path === "") throw usage("a PATH is empty");
  const absolute = resolve(cwd, path);
  const inside = within(root, absolute) ?? within(root, resolveParents(absolute));
  if (inside !== null) return inside;
  if (!path.startsWith("/") && within(root, cwd) === null && within(root, resolveParents(cwd)) === null) {
    const fromRoot = within(root, resolve(root, path));
    if (fromRoot !== null) return fromRoot;
  }
  throw usage(`${path} is outside the workspace ${root}`, "give PATH relative to the current folder");
}

function within(root: string, absolute: string): string | null {
  const path = relative(root, absolute);
  return path === ".." || path.startsWith("../") ? null : path;
}

/** Returns the path with links in its existing folders resolved, but not in its last part. */
function resolveParents(absolute: string): string {
  const parent = dirname(absolute);
  if (parent === absolute) return absolute;
  try {
    return join(realpathSync.native(parent), basename(absolute));
  } catch {
    return join(resolveParents(parent), basename(absolute));
  }
}

/** The character that replaces bytes that are not UTF-8 in arguments. */
const REPLACEMENT = "\uFFFD";

/** The real path; the given one if it does not exist, or if the real one is not UTF-8 and so cannot be an argument. */
function realIfText(path: string): string {
  try {
    const real = realpathSync.native(path);
    return isLost(real) ? path : real;
  } catch {
    return path;
  }
}

/** True if a path has lost bytes: no entry really has a name with the replacement character. */
function isLost(path: string): boolean {
  const last = path.lastIndexOf(REPLACEMENT);
  if (last < 0) return false;
  const end = path.indexOf("/", last);
  return !existsSync(end < 0 ? path : path.slice(0, end));
}
