import { createHash } from "node:crypto";
import { latin1 } from "../../formats/bytes.ts";

/** Reads and writes git's own files. Names and values are latin1 text. */

/** True for a path with the name `.git` in it. */
export const isOfGit = (path: Uint8Array): boolean => /(?:^|\/)\.git(?:\/|$)/.test(latin1(path));

/** The parts of a git directory that relative changes treat alike. */
type GitPart = "together" | "ref" | "log" | "object" | "never" | "lock" | "quiet" | "other";

const WORK =
  /^(?:(?:rebase-merge|rebase-apply|sequencer)(?:\/|$)|(?:MERGE_HEAD|MERGE_MODE|MERGE_MSG|MERGE_RR|SQUASH_MSG|CHERRY_PICK_HEAD|REVERT_HEAD|REBASE_HEAD|AUTO_MERGE|BISECT_\w+)$)/;

/** Paths and directories of work in progress: a rebase, merge, cherry-pick, revert or bisect. */
export const isWork = (name: string): boolean => WORK.test(name);

/** Returns the part of a git directory that an entry belongs to. `name`: below the git directory. */
export function gitPart(name: string): GitPart {
  if (/^(?:hooks|worktrees)(?:\/|$)|^FETCH_HEAD$/.test(name)) return "never";
  if (name.endsWith(".lock")) return "lock";
  if (name === "HEAD" || name === "index" || isWork(name)) return "together";
  if (/^(?:refs(?:\/|$)|packed-refs$)/.test(name)) return "ref";
  if (/^logs(?:\/|$)/.test(name)) return "log";
  if (/^(?:objects(?:\/|$)|sharedindex\.)/.test(name)) return "object";
  return /^(?:COMMIT_EDITMSG|ORIG_HEAD|gc\.log|gc\.pid|info\/refs)$/.test(name) ? "quiet" : "other";
}

/** True for files below `objects` that git makes again, or that a running git writes. */
export const isObjectCache = (name: string): boolean =>
  /(?:^|\/)tmp_|\.lock$|^objects\/info\/(?:commit-graph|packs)|^objects\/pack\/multi-pack-index/.test(name);

/** Returns the name after `ref: `; null for another text. */
export function symbolicTarget(text: string): string | null {
  return /^ref:\s*(\S+)\s*$/.exec(text)?.[1] ?? null;
}

/** Returns the values of a file `packed-refs`, by name. */
export function packedRefs(text: string): Map<string, string> {
  const refs = new Map<string, string>();
  for (const line of text.split("\n")) {
    const [, value, name] = /^([0-9a-f]{40,64}) (\S+)$/.exec(line) ?? [];
    if (name !== undefined) refs.set(name, value!);
  }
  return refs;
}

/** Returns a file `packed-refs` without some names, and without their peeled values. */
export function withoutPacked(text: string, names: ReadonlySet<string>): string {
  let isOut = false;
  const kept = text.split("\n").filter((line) => {
    if (!line.startsWith("^")) isOut = names.has(line.slice(line.indexOf(" ") + 1)) && /^[0-9a-f]/.test(line);
    return !isOut;
  });
  return kept.join("\n");
}

/** One value that a ref gets, for its reflog. */
interface LogEntry {
  before: string;
  after: string;
  /** seconds */
  at: number;
  about: string;
}

export function logLine({ before, after, at, about }: LogEntry): string {
  return `${before} ${after} Cairn <cairn@localhost> ${at} +0000\t${about}`;
}

export function logLines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** Returns the value of a reflog's last line. */
export function lastValue(lines: readonly string[]): string | undefined {
  return lines.at(-1)?.split(" ", 2)[1];
}

/** Returns the present lines with lost ones inserted after the lines that both lists have at their beginning. */
export function withLost(present: readonly string[], found: readonly string[], lost: readonly string[]): string[] {
  let same = 0;
  while (same < present.length && present[same] === found[same]) same++;
  return [...present.slice(0, same), ...lost, ...present.slice(same)];
}

/**
 * Returns a key of the index that `git status` does not change: it is about entries and flags, not about stat data. A
 * damaged index, a split one and another version count by their bytes.
 */
export function indexKey(bytes: Buffer): string {
  const entries = createHash("sha256");
  const isRead = readIndex(bytes, (entry) => entries.update(entry));
  return isRead ? `entries ${entries.digest("hex")}` : `bytes ${createHash("sha256").update(bytes).digest("hex")}`;
}

const FIXED = 62;
const EXTENDED = 0x4000;
const NAME = 0x0fff;
const SHA1 = 20;

/** Calls `use` with each entry. Returns false if the index is not one of version 2 to 4 with SHA-1 names. */
function readIndex(bytes: Buffer, use: (entry: string) => void): boolean {
  const end = bytes.length - SHA1;
  if (end < 12 || latin1(bytes.subarray(0, 4)) !== "DIRC") return false;
  const [version, count] = [bytes.readUInt32BE(4), bytes.readUInt32BE(8)];
  if (version < 2 || version > 4 || !isWhole(bytes, end)) return false;
  let at = 12;
  let name = "";
  for (let i = 0; i < count; i++) {
    if (at + FIXED > end) return false;
    const flags = bytes.readUInt16BE(at + 60);
    const isExtended = (flags & EXTENDED) !== 0;
    if (isExtended && (version === 2 || at + FIXED + 2 > end)) return false;
    const more = isExtended ? bytes.readUInt16BE(at + FIXED) : 0;
    let start = at + FIXED + (isExtended ? 2 : 0);
    let before = "";
    if (version === 4) {
      const { value, next } = offsetAt(bytes, start, end);
      if (value > name.length) return false;
      before = name.slice(0, name.length - value);
      start = next;
    }
    const stop = bytes.indexOf(0, start);
    if (stop < 0 || stop >= end) return false;
    const own = before + latin1(bytes.subarray(start, stop));
    const length = flags & NAME;
    if (length !== Math.min(own.length, NAME) || (i > 0 && own < name)) return false;
    name = own;
    const mode = bytes.readUInt32BE(at + 24);
    const id = bytes.toString("hex", at + 40, at + 60);
    use(`${mode} ${id} ${flags & ~(NAME | EXTENDED)} ${more} ${name}\0`);
    at = version === 4 ? stop + 1 : at + ((stop - at + 8) & ~7);
  }
  return areKnown(bytes, at, end);
}

/** A newer git may write no checksum. */
function isWhole(bytes: Buffer, end: number): boolean {
  const sum = bytes.subarray(end);
  return sum.every((byte) => byte === 0) || createHash("sha1").update(bytes.subarray(0, end)).digest().equals(sum);
}

/** Reads the number of bytes to cut off the name before, in version 4. */
function offsetAt(bytes: Buffer, start: number, end: number): { value: number; next: number } {
  let next = start;
  let byte = bytes[next++]!;
  let value = byte & 0x7f;
  while ((byte & 0x80) !== 0 && next < end && value < 1 << 20) {
    byte = bytes[next++]!;
    value = ((value + 1) << 7) | (byte & 0x7f);
  }
  return { value, next };
}

/** True if every extension can be left out of account: the optional ones, and directories of a sparse index. */
function areKnown(bytes: Buffer, start: number, end: number): boolean {
  let at = start;
  while (at < end) {
    if (at + 8 > end) return false;
    const signature = latin1(bytes.subarray(at, at + 4));
    if (!/^[A-Z]/.test(signature) && signature !== "sdir") return false;
    at += 8 + bytes.readUInt32BE(at + 4);
  }
  return at === end;
}
