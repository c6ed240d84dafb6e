import { isUtf8 } from "node:buffer";
import { CairnError } from "../errors.ts";
import { compilePattern, compilePatterns, placeOfPath } from "./ignore-pattern.ts";
import type { IgnorePattern } from "./ignore-pattern.ts";

/** The name of an ignore file. Only a regular file of this name counts, never a link. */
export const IGNORE_FILE = ".cairnignore";

/** The largest ignore file that is read. */
export const MAX_IGNORE_FILE_BYTES = 1 << 20;

export interface RecordedIgnoreFile {
  /** The directory that holds the file, relative to the workspace's root; "" is the root itself. */
  path: string;
  path_b64?: string;
  text: string;
  text_b64?: string;
}

/** The rules of a save point, in the form of its descriptor. */
export interface IgnoreRecord {
  excludes: string[];
  files: RecordedIgnoreFile[];
}

/** Rules that ignore nothing, even if ignore files exist. */
export const NO_RULES: IgnoreRecord = { excludes: [], files: [] };

/** An ignore file that a walk found: directory and content, both raw bytes decoded as latin1. */
export interface FoundIgnoreFile {
  readonly directory: string;
  readonly text: string;
}

interface Level {
  /** Characters to skip in a path from the root: the directory's own path and its slash. */
  readonly skip: number;
  readonly patterns: readonly IgnorePattern[];
  /**
   * The indexes of patterns that match in one place only, such as `/a/b` and `/a/*`, by that place. A file may have tens
   * of thousands of them.
   */
  readonly places: ReadonlyMap<string, readonly number[]>;
  /** Indexes of all other patterns. */
  readonly others: readonly number[];
}

function toLatin1(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

function levelOf(skip: number, patterns: readonly IgnorePattern[]): Level {
  const places = new Map<string, number[]>();
  const others: number[] = [];
  for (const [at, { place }] of patterns.entries()) {
    const known = place === null ? others : places.get(place);
    if (known === undefined) places.set(place!, [at]);
    else known.push(at);
  }
  return { skip, patterns, places, others };
}

interface Entry {
  readonly name: string;
  /** The path from the root. */
  readonly path: () => string;
  readonly isDirectory: boolean | (() => boolean);
}

/** The last matching pattern decides: true excluded, false included again, null undecided. */
function decide(level: Level, entry: Entry): boolean | null {
  const { patterns, others } = level;
  let last = lastAtPlace(level, entry);
  for (let i = others.length - 1; i >= 0 && others[i]! > last; i--)
    if (fits(patterns[others[i]!]!, level, entry)) last = others[i]!;
  return last < 0 ? null : !patterns[last]!.negated;
}

function fits(pattern: IgnorePattern, { skip }: Level, { name, path, isDirectory }: Entry): boolean {
  if (pattern.directoriesOnly && isDirectory === false) return false;
  if (!pattern.matches(pattern.wholePath ? path().slice(skip) : name)) return false;
  return !pattern.directoriesOnly || (typeof isDirectory === "function" ? isDirectory() : isDirectory);
}

/** Index of the last pattern that matches by its place: this entry or all entries of its directory; -1 if none does. */
function lastAtPlace(level: Level, entry: Entry): number {
  const { patterns, places, skip } = level;
  if (places.size === 0) return -1;
  const place = placeOfPath(entry.path().slice(skip));
  const inside = place.slice(0, place.lastIndexOf("/") + 1) || "/";
  let last = -1;
  for (const key of [place, inside])
    for (const at of places.get(key) ?? []) if (at > last && fits(patterns[at]!, level, entry)) last = at;
  return last;
}

/**
 * Holds the ignore rules inside one directory of a walk: `enterDirectory` for each directory that is not ignored (the
 * root has path ""), then `ignores` for each entry. `--exclude` patterns decide before files, a deeper file before a
 * shallower one, a later line before an earlier one. Immutable.
 */
export class IgnoreRules {
  readonly #excludes: readonly string[];
  readonly #directory: string;
  /** Deepest first, but the `--exclude` patterns come before all. */
  readonly #levels: readonly Level[];
  readonly #recorded: ReadonlyMap<string, string> | null;

  private constructor(
    excludes: readonly string[],
    directory: string,
    levels: readonly Level[],
    recorded: ReadonlyMap<string, string> | null,
  ) {
    this.#excludes = excludes;
    this.#directory = directory;
    this.#levels = levels;
    this.#recorded = recorded;
  }

  /**
   * The rules above the root: `--exclude` patterns (UTF-8 text in gitignore syntax), and the files that the walk finds.
   */
  static fromExcludes(excludes: readonly string[]): IgnoreRules {
    return new IgnoreRules(excludes, "", excludeLevels(excludes), null);
  }

  /** The rules of a save point: the recorded files count, not the present files. */
  static fromRecord(record: IgnoreRecord): IgnoreRules {
    const files = new Map<string, string>();
    for (const file of record.files) files.set(bytesOf(file.path, file.path_b64), bytesOf(file.text, file.text_b64));
    return new IgnoreRules(record.excludes, "", excludeLevels(record.excludes), files);
  }

  /**
   * Returns the rules inside a directory. `directory`: path from the root; `ignoreFile`: bytes of its ignore file, or
   * null. Recorded rules ignore the bytes: see `needsFiles`. Throws `refused` if the file is larger than
   * `MAX_IGNORE_FILE_BYTES`.
   */
  static enterDirectory(parent: IgnoreRules, directory: string, ignoreFile: Uint8Array | null): IgnoreRules {
    return parent.#enter(directory, ignoreFile);
  }

  #enter(directory: string, ignoreFile: Uint8Array | null): IgnoreRules {
    if (this.#levels.length === 0 && ignoreFile === null && this.#recorded === null) return this;
    const text = this.#recorded === null ? textOfFile(directory, ignoreFile) : this.#recorded.get(directory);
    const patterns = text === undefined ? [] : compilePatterns(text);
    if (patterns.length === 0) return new IgnoreRules(this.#excludes, directory, this.#levels, this.#recorded);
    const level = levelOf(directory === "" ? 0 : directory.length + 1, patterns);
    const first = this.#excludes.length > 0 && this.#levels.length > 0 ? 1 : 0;
    const levels = [...this.#levels.slice(0, first), level, ...this.#levels.slice(first)];
    return new IgnoreRules(this.#excludes, directory, levels, this.#recorded);
  }

  /** Returns the rules inside `directory` with more `--exclude` patterns, which the given ones override. */
  excluding(directory: string, patterns: readonly string[]): IgnoreRules {
    if (patterns.length === 0) return this;
    const first = this.#excludes.length > 0 ? 1 : 0;
    const levels = [...this.#levels.slice(0, first), ...excludeLevels(patterns), ...this.#levels.slice(first)];
    return new IgnoreRules(this.#excludes, directory, levels, this.#recorded);
  }

  /** True if nothing in this directory can be ignored; deeper directories may still have ignore files. */
  get empty(): boolean {
    return this.#levels.length === 0;
  }

  /** True if nothing below this directory can be ignored either, so the walk need not ask. */
  get emptyBelow(): boolean {
    return this.empty && this.#recorded !== null && this.#recorded.size === 0;
  }

  /** True if the walk must pass the ignore files that it finds; false for recorded rules. */
  get needsFiles(): boolean {
    return this.#recorded === null;
  }

  /**
   * True if an entry of this directory is ignored. `isDirectory` is false for a link to a directory; as a function it is
   * asked only for patterns of directories.
   */
  ignores(name: string, isDirectory: boolean | (() => boolean)): boolean {
    let joined: string | undefined;
    const path = (): string => (joined ??= this.#directory === "" ? name : `${this.#directory}/${name}`);
    const entry = { name, path, isDirectory };
    for (const level of this.#levels) {
      const decided = decide(level, entry);
      if (decided !== null) return decided;
    }
    return false;
  }

  /** Returns the rules for a descriptor, from every ignore file that the walk's threads found. */
  record(found: readonly FoundIgnoreFile[]): IgnoreRecord {
    if (this.#recorded !== null)
      return recordOf(
        this.#excludes,
        [...this.#recorded].map(([directory, text]) => ({ directory, text })),
      );
    return recordOf(this.#excludes, found);
  }
}

function excludeLevels(excludes: readonly string[]): Level[] {
  const patterns = excludes.map((exclude) => compilePattern(toLatin1(exclude))).filter((pattern) => pattern !== null);
  // An empty level keeps the place of the excludes, so that `enterDirectory` knows the index of the first file.
  return excludes.length === 0 ? [] : [levelOf(0, patterns)];
}

function textOfFile(directory: string, bytes: Uint8Array | null): string | undefined {
  if (bytes === null) return undefined;
  if (bytes.length > MAX_IGNORE_FILE_BYTES) {
    const place = directory === "" ? IGNORE_FILE : `${directory}/${IGNORE_FILE}`;
    throw new CairnError("refused", `${place} has ${bytes.length} bytes; the limit is ${MAX_IGNORE_FILE_BYTES}`, {
      hint: "make the ignore file smaller",
    });
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

function bytesOf(text: string, base64: string | undefined): string {
  return (base64 === undefined ? Buffer.from(text, "utf8") : Buffer.from(base64, "base64")).toString("latin1");
}

function recordOf(excludes: readonly string[], found: readonly FoundIgnoreFile[]): IgnoreRecord {
  const files = found.map(({ directory, text }) => {
    const path = Buffer.from(directory, "latin1");
    const content = Buffer.from(text, "latin1");
    return {
      path: path.toString("utf8"),
      ...(isUtf8(path) ? {} : { path_b64: path.toString("base64") }),
      text: content.toString("utf8"),
      ...(isUtf8(content) ? {} : { text_b64: content.toString("base64") }),
      order: directory,
    };
  });
  // Sorted by raw bytes, so that equal rules give equal descriptors, whatever order the threads found the files in.
  files.sort((a, b) => (a.order < b.order ? -1 : a.order > b.order ? 1 : 0));
  return { excludes: [...excludes], files: files.map(({ order: _order, ...file }) => file) };
}
