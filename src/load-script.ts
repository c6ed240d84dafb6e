import { isAscii } from "node:buffer";
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { getCompileCacheDir } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Script } from "node:vm";
import { crc32 } from "node:zlib";

/**
 * Runs modules of the library, the command and the worker threads from scripts (`dist/*.cjs`, made by tools/link.ts). The modules that a command runs are cached as one script: the first run keeps their text, the second V8's compiled code
 * of the functions that were called. So a command reads and compiles no more than it uses. A cached file that is damaged,
 * or of another user, V8 or build, is ignored.
 */

/** Runs a module, at most once, and returns its exports. */
type Load = (key: string) => unknown;
type Exports = Record<string, unknown>;
/** A module's function in the build. `url`: of a file in dist, for files that the code looks for beside itself. */
type Body = (require: Load, exports: Exports, url: string) => void;
type Bodies = Readonly<Record<string, Body>>;

/** Names of the files of scripts, by the group of modules in the script. */
export type ScriptFiles = Readonly<Record<string, string>>;

export interface Loaded {
  readonly exports: Exports;
  /** Caches the modules loaded so far, or their code, if the cache lacks them. Never throws. */
  keep(): void;
}

/** The header of a cached file: CRC-32 of the text, CRC-32 of the file's content. */
const HEADER = 8;
/** Milliseconds for which cached files of other builds stay: another installation may still use them. */
const KEEP_OTHERS_MS = 24 * 3_600_000;
/** Options of the command that take a value. */
const WITH_VALUE = /^(?:-C|--(?:directory|progress|control-dir|lock-timeout))$/;

/**
 * Runs a module and the modules that it needs. `base`: URL of a file beside the scripts; `cache`: name of the cached script,
 * null: no cache. Throws the module's errors.
 */
export function loadModule(key: string, files: ScriptFiles, base: string, cache: string | null): Loaded {
  const folder = getCompileCacheDir();
  const modules = new Modules(files, base, cache === null || folder === undefined ? null : path.join(folder, cache));
  return { exports: modules.load(key), keep: () => modules.keep() };
}

/** Returns the name of the cached script of a command line, which depends on the command, or on a lone option. */
export function cacheOf(argv: readonly string[]): string {
  let at = 0;
  while (argv[at]?.startsWith("-") === true) at += WITH_VALUE.test(argv[at]!) ? 2 : 1;
  const word = argv[at] ?? argv[0] ?? "";
  return /^-{0,2}[a-z]+(?:-[a-z]+)*$/.test(word) ? `cairn-${word}` : "cairn";
}

let library: Modules | undefined;

/** Runs a module of the library. All such modules share the modules that they need, so that there is one `CairnError`. */
export function loadLibrary(key: string, files: ScriptFiles, base: string): Exports {
  library ??= new Modules(files, base, null);
  return library.load(key);
}

class Modules {
  readonly #files: ScriptFiles;
  readonly #base: string;
  readonly #exports = new Map<string, Exports>();
  readonly #scripts = new Map<string, Bodies>();
  readonly #cache: Cache | null;

  /** `cache`: path of the cached script, without the ending. */
  constructor(files: ScriptFiles, base: string, cache: string | null) {
    this.#files = files;
    this.#base = base;
    const build = crc32(JSON.stringify(files)).toString(16);
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

  /** A key is a file of the build with one module ("./name.cjs"), or a group and a name in it ("group:name"). */
  #bodyOf(key: string): Body {
    const name = key.startsWith("./") ? key.slice("./".length) : this.#files[key.slice(0, key.indexOf(":"))]!;
    let bodies = this.#scripts.get(name);
    if (bodies === undefined) {
      const filename = path.join(path.dirname(fileURLToPath(this.#base)), name);
      bodies = new Script(readFileSync(filename, "utf8"), { filename }).runInThisContext() as Bodies;
      this.#scripts.set(name, bodies);
    }
    this.#cache?.added.set(key, bodies[key]!);
    return bodies[key]!;
  }

  keep(): void {
    try {
      this.#cache?.keep();
    } catch {
      // Without a cache the scripts are read and compiled again.
    }
  }
}

/** A cached script: files with its text and its code. */
class Cache {
  readonly #path: string;
  readonly #textCrc: number = 0;
  readonly #script: Script | null = null;
  readonly #isCompiled: boolean = false;
  readonly bodies: Bodies = {};
  /** Modules that the cached script lacks. */
  readonly added = new Map<string, Body>();

  constructor(place: string) {
    this.#path = place;
    const bytes = this.#read(".cjs", null);
    if (bytes === undefined) return;
    this.#textCrc = crc32(bytes);
    const cachedData = this.#read(".code", this.#textCrc);
    this.#script = new Script(bytes.toString(isAscii(bytes) ? "latin1" : "utf8"), {
      filename: `${place}.cjs`,
      cachedData,
    });
    this.#isCompiled = cachedData !== undefined && this.#script.cachedDataRejected !== true;
    this.bodies = this.#script.runInThisContext() as Bodies;
  }

  #read(ending: string, textCrc: number | null): Buffer | undefined {
    let fd: number | undefined;
    try {
      fd = openSync(`${this.#path}${ending}`, "r");
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

  keep(): void {
    if (this.#isCompiled && this.added.size === 0) return;
    mkdirSync(path.dirname(this.#path), { recursive: true, mode: 0o700 });
    if (this.added.size > 0) {
      const members = [...Object.entries(this.bodies), ...this.added].map(
        ([key, body]) => `${JSON.stringify(key)}: ${body.toString()}`,
      );
      const text = Buffer.from(`({${members.join(",\n")}})`);
      this.#write(".cjs", crc32(text), text);
      this.added.clear();
      this.#removeOthers();
    } else this.#write(".code", this.#textCrc, this.#script!.createCachedData());
  }

  /** A concurrent write or a kill can at worst leave a file whose checksum is wrong. */
  #write(ending: string, textCrc: number, content: Buffer): void {
    const header = Buffer.alloc(HEADER);
    header.writeUInt32LE(textCrc, 0);
    header.writeUInt32LE(crc32(content), 4);
    const file = `${this.#path}${ending}`;
    try {
      writeFileSync(`${file}.tmp`, Buffer.concat([header, content]), { mode: 0o600 });
      renameSync(`${file}.tmp`, file);
    } catch (error) {
      rmSync(`${file}.tmp`, { force: true });
      throw error;
    }
  }

  #removeOthers(): void {
    const [, build] = /(-[0-9a-f]+)$/.exec(this.#path)!;
    const folder = path.dirname(this.#path);
    for (const name of readdirSync(folder)) {
      if (!/^cairn.*-[0-9a-f]+\.(?:cjs|code)(?:\.tmp)?$/.test(name) || name.includes(`${build}.`)) continue;
      const file = path.join(folder, name);
      if (Date.now() - statSync(file).mtimeMs > KEEP_OTHERS_MS) rmSync(file);
    }
  }
}
