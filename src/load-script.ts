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
 * Loads the scripts (`dist/*.cjs`) of the library, the command and the worker threads. V8's compiled code of the
 * command and the threads is cached in files, which saves a third of a short command. A cached file that is damaged, or
 * of another user, V8 or script, is ignored.
 */

/** Loads one script and the scripts that it requires, each at most once. Returns its exports. */
type Load = (name: string) => unknown;
type Exports = Record<string, unknown>;
/** A module's function in the build. `url`: of a file in dist, for files that the code looks for beside itself. */
type Body = (require: Load, exports: Exports, url: string) => void;

export interface LoadedScript {
  readonly exports: Exports;
  /** Caches the code compiled so far, if a script was loaded without a cache file. Never throws. */
  keep(): void;
}

/** The header: CRC-32 of the script's text, CRC-32 of the code. */
const HEADER = 8;
/** Milliseconds for which cached code of scripts outside this dist stays: another installation may still use it. */
const KEEP_OTHERS_MS = 24 * 3_600_000;

/**
 * Loads a script. `base`: URL of a file beside the scripts; `folder`: of the cache, by default Node's compile cache,
 * null: no cache. Throws the script's errors.
 */
export function loadScript(name: string, base: string, folder: string | null = defaultFolder(name)): LoadedScript {
  const scripts = new Scripts(base, folder);
  return { exports: scripts.load(name), keep: () => scripts.keep() };
}

let library: Scripts | undefined;

/** Loads a script of the library. All such scripts share the scripts that they require, so that there is one `CairnError`. */
export function loadLibrary(name: string, base: string): Exports {
  library ??= new Scripts(base, null);
  return library.load(name);
}

/** Returns the folder of a first script's compiled code: a thread runs other functions of the same scripts than the command. */
function defaultFolder(name: string): string | null {
  const folder = getCompileCacheDir();
  return folder === undefined ? null : path.join(folder, `cairn-${name.replace(/-[^-]*$/, "")}`);
}

class Scripts {
  readonly #base: string;
  readonly #directory: string;
  readonly #folder: string | null;
  readonly #exports = new Map<string, Exports>();
  readonly #loaded: { name: string; textCrc: number; script: Script }[] = [];
  #isNew = false;

  constructor(base: string, folder: string | null) {
    this.#base = base;
    this.#directory = path.dirname(fileURLToPath(base));
    this.#folder = folder;
  }

  load(name: string): Exports {
    const known = this.#exports.get(name);
    if (known !== undefined) return known;
    const exports = {};
    const body = this.#compile(name).runInThisContext() as Body;
    // Packages in CommonJS form require Node's own modules.
    const require: Load = (asked) =>
      asked.startsWith("./") ? this.load(asked.slice("./".length)) : process.getBuiltinModule(asked);
    body(require, exports, this.#base);
    // Scripts do not require each other, so none sees these exports before they are complete.
    this.#exports.set(name, exports);
    return exports;
  }

  #compile(name: string): Script {
    const filename = path.join(this.#directory, name);
    const bytes = readFileSync(filename);
    const text = bytes.toString(isAscii(bytes) ? "latin1" : "utf8");
    if (this.#folder === null) return new Script(text, { filename });
    const textCrc = crc32(bytes);
    const cachedData = this.#keptCode(name, textCrc);
    const script = new Script(text, { filename, cachedData });
    if (cachedData === undefined || script.cachedDataRejected === true) this.#isNew = true;
    this.#loaded.push({ name, textCrc, script });
    return script;
  }

  #keptCode(name: string, textCrc: number): Buffer | undefined {
    let fd: number | undefined;
    try {
      fd = openSync(this.#fileOf(name), "r");
      // Another user's code would run as this user.
      if (![process.geteuid?.(), 0].includes(fstatSync(fd).uid)) return undefined;
      const bytes = readFileSync(fd);
      const code = bytes.subarray(HEADER);
      const isWhole = bytes.readUInt32LE(0) === textCrc && bytes.readUInt32LE(4) === crc32(code);
      return isWhole ? code : undefined;
    } catch {
      // The file is missing or not readable.
      return undefined;
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }

  #fileOf(name: string): string {
    return path.join(this.#folder!, `${name}.code`);
  }

  keep(): void {
    if (!this.#isNew) return;
    this.#isNew = false;
    try {
      mkdirSync(this.#folder!, { recursive: true, mode: 0o700 });
      for (const { name, textCrc, script } of this.#loaded) this.#write(name, textCrc, script.createCachedData());
      this.#removeOthers();
    } catch {
      // Without a cache file the code is compiled again.
    }
  }

  /** A concurrent write or a kill can at worst leave a file whose checksum is wrong. */
  #write(name: string, textCrc: number, code: Buffer): void {
    const header = Buffer.alloc(HEADER);
    header.writeUInt32LE(textCrc, 0);
    header.writeUInt32LE(crc32(code), 4);
    const file = this.#fileOf(name);
    try {
      writeFileSync(`${file}.tmp`, Buffer.concat([header, code]), { mode: 0o600 });
      renameSync(`${file}.tmp`, file);
    } catch (error) {
      rmSync(`${file}.tmp`, { force: true });
      throw error;
    }
  }

  #removeOthers(): void {
    const here = new Set(readdirSync(this.#directory).map((name) => `${name}.code`));
    for (const name of readdirSync(this.#folder!)) {
      const file = path.join(this.#folder!, name);
      if (!here.has(name) && Date.now() - statSync(file).mtimeMs > KEEP_OTHERS_MS) rmSync(file);
    }
  }
}
