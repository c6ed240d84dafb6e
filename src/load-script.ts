import { isAscii } from "node:buffer";
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { getCompileCacheDir } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Script } from "node:vm";
import { crc32 } from "node:zlib";

/**
 * Runs modules of the command, its threads and the library from scripts, which are parts of one file of the build. The
 * file stays open, so that an operation runs on if the package is removed or replaced.
 */

/** Runs a module, at most once, and returns its exports. */
type Load = (key: string) => unknown;
type Exports = Record<string, unknown>;
/** A module's function in the build. `url`: of a file in dist, for files that the code looks for beside itself. */
type Body = (require: Load, exports: Exports, url: string) => void;
type Bodies = Readonly<Record<string, Body>>;

/** The scripts of a build. */
export interface Scripts {
  /** Name of the file, with a checksum of its content. */
  readonly file: string;
  /** First byte and length of each script, by the group of its modules, or by the key of its one module. */
  readonly parts: Readonly<Record<string, readonly [start: number, length: number]>>;
}

interface Loaded {
  readonly exports: Exports;
  /** Caches the modules loaded so far, or their code, if the cache lacks them. Never throws. */
  keep(): void;
  /** Returns the source file of a place in the scripts, for example `src/errors.ts`; null for a place elsewhere. */
  sourceAt(file: string, line: number): string | null;
}

/** Begins a module's line: the name of its group, and its path there. */
const MODULE = /^(?:\(\{)?"([\w-]+):([^"]+)": /;
/** The header of a cached file: CRC-32 of the text, CRC-32 of the file's content. */
const HEADER = 8;
/** Milliseconds for which cached files of other builds stay: another installation may still use them. */
const KEEP_OTHERS_MS = 24 * 3_600_000;
/** Options of the command that take a value. */
const WITH_VALUE = /^(?:-C|--(?:directory|progress|control-dir|lock-timeout))$/;

/**
 * Runs a module and the modules that it needs. `base`: URL of a file beside the scripts; `cache`: name of the cached
 * script. Throws the module's errors.
 */
export function loadModule(key: string, scripts: Scripts, base: string, cache: string): Loaded {
  const folder = getCompileCacheDir();
  const modules = new Modules(scripts, base, folder === undefined ? null : path.join(folder, cache));
  return {
    exports: modules.load(key),
    keep: () => modules.keep(),
    sourceAt: (file, line) => modules.sourceAt(file, line),
  };
}

/** Makes stacks name source files instead of places in the scripts, whose lines are whole modules. */
export function nameSources({ sourceAt }: Pick<Loaded, "sourceAt">): void {
  Error.prepareStackTrace = (error, sites) => {
    const lines = sites.map((site) => {
      const [file, line] = [site.getFileName(), site.getLineNumber()];
      const source = file === null || line === null ? null : sourceAt(file, line);
      const text = (site as { toString(): string }).toString();
      return `\n    at ${source === null ? text : text.replace(`${file}:${line}:${site.getColumnNumber()}`, source)}`;
    });
    return `${Error.prototype.toString.call(error)}${lines.join("")}`;
  };
}

/** Ends the process after an error that nobody caught. Node would print the line of the script first, a whole module. */
export function endUncaught(error: unknown): never {
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  writeSync(2, `cairn: unexpected failure: ${stack}\n`);
  process.exit(1);
}

/** Returns the name of the cached script of a command line, which depends on the command, or on a lone option. */
export function cacheOf(argv: readonly string[]): string {
  let at = 0;
  while (argv[at]?.startsWith("-") === true) at += WITH_VALUE.test(argv[at]!) ? 2 : 1;
  const word = argv[at] ?? argv[0] ?? "";
  return /^-{0,2}[a-z]+(?:-[a-z]+)*$/.test(word) ? `cairn-${word}` : "cairn";
}

let library: Modules | undefined;

/** Runs a module of the library. All of them share the modules that they need, so that there is one `CairnError`. */
export function loadLibrary(key: string, scripts: Scripts, base: string): Exports {
  try {
    library ??= new Modules(scripts, base, null);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw error;
    const hint = "a bundler must leave cairnstate outside (esbuild: --external:cairnstate; vite: ssr.external)";
    throw Object.assign(error as Error, { message: `${(error as Error).message}; ${hint}` });
  }
  return library.load(key);
}

class Modules {
  readonly #parts: Scripts["parts"];
  readonly #base: string;
  readonly #filename: string;
  /** The open file of the scripts. Node closes a thread's with the thread. */
  readonly #fd: number;
  readonly #exports = new Map<string, Exports>();
  readonly #bodies = new Map<string, Bodies>();
  readonly #cache: Cache | null;
  readonly #keys = new Map<string, (RegExpExecArray | null)[]>();

  /** `cache`: path of the cached script, without the ending. */
  constructor({ file, parts }: Scripts, base: string, cache: string | null) {
    this.#parts = parts;
    this.#base = base;
    this.#filename = path.join(path.dirname(fileURLToPath(base)), file);
    try {
      this.#fd = openSync(this.#filename, "r");
    } catch (error) {
      throw missing(this.#filename, error);
    }
    const [, build] = /([^-]+)\.cjs$/.exec(file)!;
    this.#cache = cache === null ? null : new Cache(`${cache}-${build}`);
  }

  readonly load = (key: string): Exports => {
    const known = this.#exports.get(key);
    if (known !== undefined) return known;
    // Packages name built-in modules without a prefix, too.
    if (/^(?:node:|[^:.]+$)/.test(key)) return process.getBuiltinModule(key) as unknown as Exports;
    const exports = {};
    (this.#cache?.bodies[key] ?? this.#bodyOf(key))(this.load, exports, this.#base);
    // Modules do not import each other, so none sees these exports before they are complete.
    this.#exports.set(key, exports);
    return exports;
  };

  /** A key is that of a script with one module ("./name.cjs"), or a group and a name in it ("group:name"). */
  #bodyOf(key: string): Body {
    const part = key.startsWith("./") ? key : key.slice(0, key.indexOf(":"));
    let bodies = this.#bodies.get(part);
    if (bodies === undefined) {
      bodies = new Script(this.#textOf(part), {
        filename: path.join(this.#filename, part),
      }).runInThisContext() as Bodies;
      this.#bodies.set(part, bodies);
    }
    this.#cache?.added.set(key, bodies[key]!);
    return bodies[key]!;
  }

  #textOf(part: string): string {
    const [start, length] = this.#parts[part]!;
    const bytes = Buffer.allocUnsafe(length);
    try {
      for (let at = 0; at < length;) {
        const count = readSync(this.#fd, bytes, at, length - at, start + at);
        if (count === 0) throw new Error("the file is too short");
        at += count;
      }
    } catch (error) {
      throw missing(this.#filename, error);
    }
    return textIn(bytes);
  }

  sourceAt(file: string, line: number): string | null {
    let keys = this.#keys.get(file);
    if (keys === undefined) this.#keys.set(file, (keys = this.#keysIn(file)));
    // A module is a line, or several if it has a template with lines.
    const [, room, rest] = keys.slice(0, line).findLast((each) => each !== null) ?? [];
    if (room === undefined) return null;
    return room === "floor" ? `src/${rest}` : `src/${room.replace("-", "/")}/${rest}`;
  }

  /** For each line of a script the key of the module that begins there, or null. */
  #keysIn(file: string): (RegExpExecArray | null)[] {
    const part = path.relative(this.#filename, file);
    try {
      const text = Object.hasOwn(this.#parts, part) ? this.#textOf(part) : this.#cache?.textOf(file);
      return (text?.split("\n") ?? []).map((line) => MODULE.exec(line.slice(0, 200)));
    } catch {
      return [];
    }
  }

  keep(): void {
    try {
      this.#cache?.keep();
    } catch {
      // Without a cache the scripts are read and compiled again.
    }
  }
}

/** Any call may load code: a system error would read as if a file of the user's were missing or unreadable. */
function missing(file: string, cause: unknown): Error {
  const message = `cannot read ${file}: ${(cause as Error).message}`;
  return Object.assign(new Error(message, { cause }), { code: "ERR_MODULE_NOT_FOUND" });
}

function textIn(bytes: Buffer): string {
  return bytes.toString(isAscii(bytes) ? "latin1" : "utf8");
}

/**
 * A cached script: a file with the text of the modules that a command runs, written by the first run, and one with V8's
 * compiled code of the functions that were called, written by the second. A command reads and compiles no more than it
 * uses. A file that is damaged, or of another user, V8 or build, is ignored.
 */
class Cache {
  readonly #path: string;
  #textCrc = 0;
  #script: Script | null = null;
  #isCompiled = false;
  /** A run writes once: the next run adds the modules that this one loads later. */
  #hasWritten = false;
  bodies: Bodies = {};
  /** Modules that the cached script lacks. */
  readonly added = new Map<string, Body>();

  constructor(place: string) {
    this.#path = place;
    const bytes = this.#read(".cjs", null);
    if (bytes === undefined) return;
    this.#textCrc = crc32(bytes);
    const cachedData = this.#read(".code", this.#textCrc);
    try {
      const script = new Script(textIn(bytes), { filename: `${place}.cjs`, cachedData });
      this.bodies = script.runInThisContext() as Bodies;
      this.#script = script;
      this.#isCompiled = cachedData !== undefined && script.cachedDataRejected !== true;
    } catch {
      // The text is no script, so it is written anew.
    }
  }

  #read(ending: string, textCrc: number | null): Buffer | undefined {
    let fd: number | undefined;
    try {
      fd = openSync(`${this.#path}${ending}`, constants.O_RDONLY | constants.O_NOFOLLOW);
      // Another user's code would run as this user.
      if (![process.geteuid?.(), 0].includes(fstatSync(fd).uid)) return undefined;
      const bytes = readFileSync(fd);
      const content = bytes.subarray(HEADER);
      const crc = crc32(content);
      return bytes.readUInt32LE(0) === (textCrc ?? crc) && bytes.readUInt32LE(4) === crc ? content : undefined;
    } catch {
      // The file is missing or not readable.
      return undefined;
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }

  /** The text of the cached script if `file` is its file. */
  textOf(file: string): string | undefined {
    return file === `${this.#path}.cjs` ? textIn(readFileSync(file).subarray(HEADER)) : undefined;
  }

  keep(): void {
    if (this.#hasWritten || (this.#isCompiled && this.added.size === 0)) return;
    this.#hasWritten = true;
    mkdirSync(path.dirname(this.#path), { recursive: true, mode: 0o700 });
    if (this.added.size > 0) {
      const members = [...Object.entries(this.bodies), ...this.added].map(
        ([key, body]) => `${JSON.stringify(key)}: ${body.toString()}`,
      );
      const text = Buffer.from(`({${members.join(",\n")}})`);
      this.#write(".cjs", crc32(text), text);
      this.#removeOthers();
    } else this.#write(".code", this.#textCrc, this.#script!.createCachedData());
  }

  /** Writes a new file of a random name and renames it, so that no link or file of another user is written to. */
  #write(ending: string, textCrc: number, content: Buffer): void {
    const header = Buffer.alloc(HEADER);
    header.writeUInt32LE(textCrc, 0);
    header.writeUInt32LE(crc32(content), 4);
    const temporary = `${this.#path}${ending}.${Math.random().toString(36).slice(2)}.tmp`;
    try {
      writeFileSync(temporary, Buffer.concat([header, content]), { mode: 0o600, flag: "wx" });
      renameSync(temporary, `${this.#path}${ending}`);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
  }

  /** Removes old files of other builds and of killed writes. */
  #removeOthers(): void {
    const [, build] = /(-[^-]+)$/.exec(this.#path)!;
    const folder = path.dirname(this.#path);
    for (const name of readdirSync(folder)) {
      const isFile = /^cairn.*-[0-9a-f]+\.(?:cjs|code)(?:\..*)?$/.test(name);
      const isCurrent = name.includes(`${build}.`) && !name.endsWith(".tmp");
      if (!isFile || isCurrent) continue;
      const file = path.join(folder, name);
      if (Date.now() - lstatSync(file).mtimeMs > KEEP_OTHERS_MS) rmSync(file);
    }
  }
}
