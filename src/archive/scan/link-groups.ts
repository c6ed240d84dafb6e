import { createHash } from "node:crypto";
import fs from "node:fs";
import { comparePaths, joinPath } from "../../formats/bytes.ts";
import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { TYPE, wide } from "../../fs/linux/syscalls.ts";
import { inodeOfKey, type LinkGroup, linkKey } from "./record-node.ts";
import { eachRecord, omitBelow } from "./summary.ts";
import { bornAt } from "./stat-words.ts";
import { type ScanNotes, TORN_LIMIT } from "./task.ts";

/**
 * Finds the hard-link groups of a scanned tree: entries of one inode with at least two names inside the workspace. A
 * group's number in the nodes comes from its first name's path, so that a new group changes no other. `settle` receives
 * inodes whose names gave different results, and may change their records.
 */
export function findLinkGroups(
  table: ScanTable,
  old: ScanTable | null,
  settle?: (differing: ReadonlySet<string>) => void,
): Map<string, LinkGroup> {
  let groups = groupsOf(table, old);
  if (settle !== undefined) {
    const differing = differingInodes(groups);
    if (differing.size > 0) {
      settle(differing);
      groups = groupsOf(table, old);
    }
  }
  for (const [key, group] of groups) {
    if (group.members < 2) groups.delete(key);
    else group.inode = linkGroupNumber(group.first);
  }
  return groups;
}

/** Calls `visit` for every record of the state with hard links, except directories. */
function eachLinked(
  table: ScanTable,
  old: ScanTable | null,
  visit: (from: ScanTable, record: number, directory: number) => void,
): void {
  const count = table.control[C.DIRECTORIES]!;
  for (let d = 0; d < count; d++) {
    const base = d * DIRECTORY_WORDS;
    const flags = table.directories[base + D.FLAGS]!;
    if ((flags & DIRECTORY_FLAG.LINKED) === 0 || (flags & DIRECTORY_FLAG.OMITTED) !== 0) continue;
    const from = flags & DIRECTORY_FLAG.SAME ? old! : table;
    const first = table.directories[base + D.FIRST]!;
    const end = first + table.directories[base + D.COUNT]!;
    for (let record = first; record < end; record++) {
      const at = record * RECORD_WORDS;
      const mode = from.records[at + R.MODE]!;
      if (
        mode === 0 ||
        mode >>> 12 === TYPE.DIRECTORY ||
        from.records[at + R.NLINK]! < 2 ||
        from.recordFlags(record) & FLAG.OMITTED
      )
        continue;
      visit(from, record, d);
    }
  }
}

/**
 * True if an entry may have other hard links than in the earlier state. The record of each name changes when its inode
 * gains or loses a name, and so does the name's directory.
 */
export function mayDifferInLinks({ table, old }: { table: ScanTable; old: ScanTable | null }): boolean {
  if (old === null) return false;
  const same = new Uint8Array(old.directories.length / DIRECTORY_WORDS);
  for (let d = 0; d < table.control[C.DIRECTORIES]!; d++) {
    const flags = table.directories[d * DIRECTORY_WORDS + D.FLAGS]!;
    if (flags & DIRECTORY_FLAG.SAME) same[table.directories[d * DIRECTORY_WORDS + D.OLD]! - 1] = 1;
    else if (flags & DIRECTORY_FLAG.LINKED) return true;
  }
  return same.some(
    (is, d) => is === 0 && (old.directories[d * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.LINKED) !== 0,
  );
}

/** By key, also groups with one member. */
function groupsOf(table: ScanTable, old: ScanTable | null): Map<string, LinkGroup> {
  const groups = new Map<string, LinkGroup>();
  let parent: { directory: number; path: Buffer } = { directory: -1, path: Buffer.alloc(0) };
  eachLinked(table, old, (from, record, directory) => {
    if (directory !== parent.directory) parent = { directory, path: table.directoryPath(directory) };
    addMember(groups, linkKey(from, record), joinPath(parent.path, from.recordName(record)));
  });
  return groups;
}

function differingInodes(groups: ReadonlyMap<string, LinkGroup>): Set<string> {
  const seen = new Set<string>();
  const differing = new Set<string>();
  for (const key of groups.keys()) {
    const inode = inodeOfKey(key);
    if (seen.has(inode)) differing.add(inode);
    seen.add(inode);
  }
  return differing;
}

function addMember(groups: Map<string, LinkGroup>, key: string, path: Buffer): void {
  const group = groups.get(key);
  if (group === undefined) {
    groups.set(key, { inode: 0n, members: 1, first: path });
    return;
  }
  group.members++;
  if (comparePaths(path, group.first) < 0) group.first = path;
}

/** The number that stands for a hard-link group in nodes, by the path of its first member. */
export function linkGroupNumber(path: Uint8Array): bigint {
  const digest = createHash("sha256").update(path).digest();
  // Below 2^53, so that every JSON reader keeps it; never zero, which means absent.
  return (digest.readBigUInt64LE(0) & 0xfffffffffffffn) + 1n;
}

/** The table of a scan, and the one that it began with. */
interface Tables {
  table: ScanTable;
  old: ScanTable | null;
}

/** A name of an inode whose names gave different results. */
interface Name {
  from: ScanTable;
  record: number;
  key: string;
  path: Buffer;
}

/**
 * Settles the records of inodes (`differing`, as {@link inodeOfKey} gives them) whose names gave different results. If
 * the names are still those of one file, all get the latest result, or count as torn if the latest is not certain.
 * Otherwise the inode number was reused, and each name keeps its own result.
 */
export function settleNames(
  tables: Tables,
  folder: { root: Uint8Array; notes: ScanNotes },
  differing: ReadonlySet<string>,
): void {
  const { table, old } = tables;
  const names = new Map<string, Name[]>();
  eachLinked(table, old, (from, record, directory) => {
    const key = linkKey(from, record);
    const inode = inodeOfKey(key);
    if (!differing.has(inode)) return;
    const path = joinPath(table.directoryPath(directory), from.recordName(record));
    const others = names.get(inode);
    if (others === undefined) names.set(inode, [{ from, record, key, path }]);
    else others.push({ from, record, key, path });
  });
  for (const each of names.values()) settle(table, folder, each);
}

function settle(table: ScanTable, { root, notes }: { root: Uint8Array; notes: ScanNotes }, names: Name[]): void {
  const looked = names.map((name) => ({ name, birth: birthOf(root, name) }));
  const present = looked.filter(({ birth }) => birth !== null);
  if (new Set(present.map(({ name }) => name.key)).size < 2) return;
  // A reused inode number belongs to a file that was created after all readings of the old file.
  const isOne = present.every(({ name, birth }) => birth! < changeTime(name));
  const last = lastOf(present.map(({ name }) => name));
  if (isOne && last !== null && present.every(({ name }) => name.from === table)) {
    for (const { name } of present) if (name.key !== last.key) takeOver(table, last.record, name.record);
    return;
  }
  for (const { name } of present)
    if (notes.torn.length < TORN_LIMIT && !notes.torn.some(({ path }) => name.path.equals(path)))
      notes.torn.push({ path: name.path, reason: "changed between the reads of its hard links" });
}

/** Birth time of the inode that a name has, in nanoseconds since 1970; null if the name now has another inode. */
function birthOf(root: Uint8Array, { from, record, path }: Name): bigint | null {
  const at = record * RECORD_WORDS + R.INO;
  try {
    const now = fs.lstatSync(joinPath(root, path), { bigint: true, throwIfNoEntry: false });
    return now?.ino === wideBig(from.records, at) ? now.birthtimeNs : null;
  } catch {
    return NEVER;
  }
}

/** Later than any time: the record of the file is certainly not final. */
const NEVER = 2n ** 64n;

function changeTime({ from: { records: words }, record }: Name): bigint {
  const base = record * RECORD_WORDS;
  const seconds = BigInt.asIntN(64, wideBig(words, base + R.CTIME));
  return seconds * 1_000_000_000n + BigInt(words[base + R.CTIME_NS]!);
}

/** A folder's scan between two rounds of listing. */
interface Listed extends Tables {
  root: Uint8Array;
  /** when the scan began (ms since 1970) */
  began: number;
  /** directories to be listed again */
  moved: Set<number>;
  /** True if an entry may have moved from a directory before its listing into one that had been listed. */
  mayLackMoved(): boolean;
  /** Lists directories that have changed since their listing, and those in `moved`, which becomes the set of the next round. */
  listAgain(): Promise<void>;
}

/**
 * Number of times that directories are listed again in which an entry was renamed during the scan: without that, a file renamed
 * between listing and reading would be in no point. A subfolder that moves is read anew at its new path: with 200 of them a
 * second, three rounds end 3 of 10 scans on ext4 and xfs, six rounds all.
 */
const AGAIN = 6;

/**
 * Lists directories again until no entry that moves between the folders can be in no state, or in two. Directories that
 * still change after `AGAIN` rounds stay in `moved`. The scans began at the same time.
 */
export async function settleMoved(scans: readonly Listed[]): Promise<void> {
  // No entry moves to another file system, and inode numbers are unique on one only.
  for (const those of Map.groupBy(scans, ({ root }) => deviceOf(root)).values()) await settleOnDevice(those);
}

async function settleOnDevice(scans: readonly Listed[]): Promise<void> {
  let known: Float64Array | null = null;
  for (let round = 0; ; round++) {
    if (known !== null) {
      dropFormerNames(scans);
      const before = known;
      known = inodesOf(scans);
      addMetSince(scans, before, known);
    }
    const isSure = known !== null || !scans.some((each) => each.mayLackMoved());
    if (round === AGAIN || (isSure && scans.every(({ moved }) => moved.size === 0))) return;
    known ??= inodesOf(scans);
    for (const each of scans) await each.listAgain();
  }
}

/** Returns the inodes of all recorded entries, sorted: each as often as it has names. */
function inodesOf(scans: readonly Tables[]): Float64Array {
  const inodes: number[] = [];
  for (const { table, old } of scans) {
    omitBelow(table);
    eachRecord(table, old, ({ table: from, record }) => inodes.push(inodeAt(from, record)));
  }
  return Float64Array.from(inodes).sort();
}

function inodeAt({ records }: ScanTable, record: number): number {
  return wide(records, record * RECORD_WORDS + R.INO);
}

/**
 * Adds the directories of entries that were met since the recorded inodes were `before`, and are `present` now, to `moved`,
 * except for entries that were born after the scans began. Adds the folders themselves if an inode has no record any more: the file left a
 * folder which itself moved, perhaps into a directory that had been listed.
 */
function addMetSince(scans: readonly Listed[], before: Float64Array, present: Float64Array): void {
  const met = new Set<number>();
  let [at, isLost] = [0, false];
  for (let i = 0; i <= present.length; i++) {
    const inode = present[i] ?? Infinity;
    for (; before[at]! < inode; at++) isLost ||= before[at] !== present[i - 1];
    if (before[at] === inode) at++;
    else if (i < present.length) met.add(inode);
  }
  if (isLost) for (const { moved } of scans) moved.add(0);
  if (met.size === 0) return;
  for (const { table: recorded, old, began, moved } of scans)
    eachRecord(recorded, old, ({ table, record, directory }) => {
      const isOlder = bornAt(table.records, R, record * RECORD_WORDS) <= began;
      if (isOlder && met.has(inodeAt(table, record))) moved.add(directory);
    });
}

/**
 * Removes the records of the former names of entries that were recorded both before and after a rename. If all names of an
 * entry are gone, the last name stays. Adds each directory to `moved` whose former name is in the previous table, or
 * belongs to another entry by now.
 */
function dropFormerNames(scans: readonly Listed[]): void {
  const sorted = inodesOf(scans);
  const twice = new Set(sorted.filter((inode, i) => inode === sorted[i + 1]));
  if (twice.size === 0) return;
  const names: { scan: Listed; id: string; from: ScanTable; record: number; directory: number; path: Buffer }[] = [];
  for (const scan of scans)
    eachRecord(scan.table, scan.old, ({ table: from, record, directory, path }) => {
      const [inode, base] = [inodeAt(from, record), record * RECORD_WORDS];
      const hasOneName = from.records[base + R.NLINK] === 1 || from.records[base + R.MODE]! >>> 12 === TYPE.DIRECTORY;
      if (!hasOneName || !twice.has(inode)) return;
      // The number of a removed inode is given to a new one.
      const id = `${inode} ${bornAt(from.records, R, base)}`;
      names.push({ scan, id, from, record, directory, path: path() });
    });
  // A directory comes before its entries, and takes them along.
  for (const all of Map.groupBy(names, ({ id }) => id).values()) {
    const recorded = all.filter(({ scan, directory }) => !scan.table.isBelowGone(directory));
    const looked = recorded.map((name) => ({ ...name, now: inodeNow(name.scan.root, name.path) }));
    const former = looked.filter(({ now, from, record }) => now !== inodeAt(from, record));
    for (const { scan, from, record, directory, now } of former.length < looked.length ? former : former.slice(0, -1)) {
      if (from === scan.table) from.leaveOut(record);
      if (from !== scan.table || now !== null) scan.moved.add(directory);
    }
  }
}

function deviceOf(root: Uint8Array): number | null {
  try {
    return fs.statSync(Buffer.from(root)).dev;
  } catch {
    return null;
  }
}

/** The inode that has a path now; null if there is none, or the file system does not tell. */
function inodeNow(root: Uint8Array, path: Uint8Array): number | null {
  try {
    return fs.lstatSync(joinPath(root, path)).ino;
  } catch {
    return null;
  }
}

function wideBig(words: Uint32Array, at: number): bigint {
  return (BigInt(words[at + 1]!) << 32n) | BigInt(words[at]!);
}

/** The name that was read after the last change; null if two different results have the same time. */
function lastOf(names: readonly Name[]): Name | null {
  const latest = names.map(changeTime).reduce((a, b) => (a > b ? a : b));
  const last = names.filter((name) => changeTime(name) === latest);
  return last.every(({ key }) => key === last[0]!.key) ? last[0]! : null;
}

/** Copies a record of the same table, except for the name. */
function takeOver(table: ScanTable, from: number, to: number): void {
  const { records: words } = table;
  const [source, target] = [from * RECORD_WORDS, to * RECORD_WORDS];
  const length = words[target + R.NAME_FLAGS]! & 0xffff;
  words.copyWithin(target + R.MODE, source + R.MODE, source + RECORD_WORDS);
  words[target + R.NAME_FLAGS] = (words[source + R.NAME_FLAGS]! & 0xffff0000) | length;
  table.touched[to] = 1;
}
