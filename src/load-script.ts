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
 * Loads the scripts (`dist/*.cjs`) of the library, the command and the worker threads. The code that V8 compiled for the command
 * and the threads is cached in files, which saves a third of a short command. A cached file that is damaged, or of another user,
 * V8 or script, is ignored.
 */

/** Loads one script, at most once, and all that it requires; what it exports. */
type Load = (name: string) => unknown;
type Exports = Record<string, unknown>;
/** Function that the build makes of a module; `url`: of a file in dist, for what the code looks for beside itself. */
type Body = (require: Load, exports: Exports, url: string) => void;

export interface LoadedScript {
  readonly exports: Exports;
  /** Keeps what has been compiled by now, where something was loaded that nothing was kept of. Never throws. */
  keep(): void;
}

/** Before the code: CRC-32 of the script's text, CRC-32 of the code. */
const HEADER = 8;
/** Kept code of scripts that are not in this dist any more: another installation may still use it. */
const KEEP_OTHERS_MS = 24 * 3_600_000;

/**
 * `base`: URL of a file beside the scripts; `folder`: where code is kept, by default where Node keeps that of modules,
 * null: nowhere. Throws what the script does.
 */
export function loadScript(name: string, base: string, folder: string | null = defaultFolder(name)): LoadedScript {
  const scripts = new Scripts(base, folder);
  return { exports: scripts.load(name), keep: () => scripts.keep() };
}

let library: Scripts | undefined;

/** Loads a script of the library. All of them share what they require, so that there is one `CairnError`. */
export function loadLibrary(name: string, base: string): Exports {
  library ??= new Scripts(base, null);
  return library.load(name);
}

/**
 * Returns the folder of a first script's compiled code: a thread runs other functions of the same scripts than the
 * command does.
 */
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
    // Packages that are no modules ask for Node's own.
    const require: Load = (asked) =>
      asked.startsWith("./") ? this.load(asked.slice("./".length)) : process.getBuiltinModule(asked);
    body(require, exports, this.#base);
    // No two scripts require each other: nobody needs what is not whole yet, or has failed.
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
      // Code of somebody else would run as this user.
      if (![process.geteuid?.(), 0].includes(fstatSync(fd).uid)) return undefined;
      const bytes = readFileSync(fd);
      const code = bytes.subarray(HEADER);
      const isWhole = bytes.readUInt32LE(0) === textCrc && bytes.readUInt32LE(4) === crc32(code);
      return isWhole ? code : undefined;
    } catch {
      // There is none, or none that can be read.
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
      // What cannot be kept is compiled again.
    }
  }

  /** Whoever else writes the same meanwhile, or is killed over it, leaves a file that does not check out at worst. */
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
