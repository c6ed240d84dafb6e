import fs from "node:fs";
import { joinPath } from "../../formats/bytes.ts";
import { R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { eachLinked } from "./link-groups.ts";
import { inodeOfKey, linkKey } from "./record-node.ts";
import { type ScanNotes, TORN_LIMIT } from "./task.ts";

/** A name of an inode of which different things were found. */
interface Name {
  from: ScanTable;
  record: number;
  key: string;
  path: Buffer;
}

/**
 * Settles the records of inodes (`differing`, as {@link inodeOfKey} gives them) under whose names different things were
 * found. Where the names still are those of one file, all get what was found last, or are noted as torn where that is
 * not sure; else the number is another file's by now, and each keeps what was found of it.
 */
export function settleNames(
  tables: { table: ScanTable; old: ScanTable | null },
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
  // An inode with a number that was free once more is younger than all that was found of the one before.
  const isOne = present.every(({ name, birth }) => birth! < changeTime(name));
  const last = lastOf(present.map(({ name }) => name));
  if (isOne && last !== null && present.every(({ name }) => name.from === table)) {
    for (const { name } of present) if (name.key !== last.key) takeOver(table, last.record, name.record);
    return;
  }
  for (const { name } of present)
    if (notes.torn.length < TORN_LIMIT && !notes.torn.some(({ path }) => name.path.equals(path)))
      notes.torn.push({ path: name.path, reason: "changed between the readings of its names" });
}

/** When the inode was made that a name stands for, in nanoseconds since 1970; null when it stands for another one by now. */
function birthOf(root: Uint8Array, { from, record, path }: Name): bigint | null {
  const at = record * RECORD_WORDS + R.INO;
  try {
    const now = fs.lstatSync(joinPath(root, path), { bigint: true, throwIfNoEntry: false });
    return now?.ino === wideBig(from.records, at) ? now.birthtimeNs : null;
  } catch {
    return NEVER;
  }
}

/** Later than anything: nothing is sure of the file. */
const NEVER = 2n ** 64n;

function changeTime({ from: { records: words }, record }: Name): bigint {
  const base = record * RECORD_WORDS;
  const seconds = BigInt.asIntN(64, wideBig(words, base + R.CTIME));
  return seconds * 1_000_000_000n + BigInt(words[base + R.CTIME_NS]!);
}

function wideBig(words: Uint32Array, at: number): bigint {
  return (BigInt(words[at + 1]!) << 32n) | BigInt(words[at]!);
}

/** The name that was looked at after the last change; null where two with different findings have the same time. */
function lastOf(names: readonly Name[]): Name | null {
  const latest = names.map(changeTime).reduce((a, b) => (a > b ? a : b));
  const last = names.filter((name) => changeTime(name) === latest);
  return last.every(({ key }) => key === last[0]!.key) ? last[0]! : null;
}

/** Gives a record what another one of the same table has, but for the name. */
function takeOver(table: ScanTable, from: number, to: number): void {
  const { records: words } = table;
  const [source, target] = [from * RECORD_WORDS, to * RECORD_WORDS];
  const length = words[target + R.NAME_FLAGS]! & 0xffff;
  words.copyWithin(target + R.MODE, source + R.MODE, source + RECORD_WORDS);
  words[target + R.NAME_FLAGS] = (words[source + R.NAME_FLAGS]! & 0xffff0000) | length;
  table.touched[to] = 1;
}
