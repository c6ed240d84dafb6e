import { CairnError } from "../../errors.ts";
import { type NodePair, ReadNodes, type TreeNode } from "../../formats/restic/tree.ts";
import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { TYPE } from "../../fs/linux/syscalls.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { linkKey, nodeOfRecord } from "./record-node.ts";
import type { ScanResult } from "./scan.ts";
import { compareNames } from "./summary.ts";

/** A scanned folder as a readable state, without storing anything. Files are read from the folder itself. */
export function presentSource(result: ScanResult): TreeSource {
  const directories = new ScannedDirectories(result);
  return {
    root: result.tree,
    list: (reference) => {
      const place = directories.at(reference);
      if (place === null) throw new CairnError("internal", "the scan has no such directory");
      return new ReadNodes(place.records.length, (i) => directories.node(place, place.records[i]!));
    },
    content: () => {
      throw new CairnError("internal", "a scan holds no content");
    },
  };
}

/**
 * A scanned folder and the state before its scan, as two sources that are compared by records without reading trees.
 * Null if there was no earlier state, or if hard links need trees for the comparison.
 */
export function presentAndPrevious(result: ScanResult): { present: TreeSource; previous: TreeSource } | null {
  const { old } = result;
  if (old === null || result.groups.size > 0) return null;
  // A table read from a file is exactly as long as its content.
  const count = old.control[C.DIRECTORIES]! || old.directories.length / DIRECTORY_WORDS;
  for (let d = 0; d < count; d++)
    if (old.directories[d * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.LINKED) return null;
  const before: ScanResult = {
    ...result,
    table: old,
    old: null,
    directories: count,
    tree: Uint8Array.from(treeOf(old, 0)),
  };
  const previous = presentSource(before);
  const sides = { now: new ScannedDirectories(result), was: new ScannedDirectories(before) };
  const present: TreeSource = {
    ...presentSource(result),
    differing: (other, own, theirs) => (other === previous ? differingRecords(sides, own, theirs) : undefined),
  };
  return { present, previous };
}

interface Place {
  directory: number;
  /** the table of these records */
  from: ScanTable;
  /** the entries that are part of the state, in raw name order */
  records: number[];
}

/** The directories of a finished scan, by the ids of their trees. */
class ScannedDirectories {
  readonly #result: ScanResult;
  readonly #byTree = new Map<string, number>();
  readonly #newOfOld: ReadonlyMap<number, number>;

  constructor(result: ScanResult) {
    this.#result = result;
    this.#newOfOld = result.table.numbersByOld();
    for (let d = 0; d < result.directories; d++) this.#byTree.set(keyOf(treeOf(result.table, d)), d);
  }

  at(reference: Uint8Array): Place | null {
    const directory = this.#byTree.get(keyOf(reference));
    if (directory === undefined) return null;
    const { table, old } = this.#result;
    const base = directory * DIRECTORY_WORDS;
    const from = table.directories[base + D.FLAGS]! & DIRECTORY_FLAG.SAME ? old! : table;
    const records: number[] = [];
    const first = table.directories[base + D.FIRST]!;
    for (let record = first; record < first + table.directories[base + D.COUNT]!; record++) {
      if (from.records[record * RECORD_WORDS + R.MODE] === 0 || from.recordFlags(record) & FLAG.OMITTED) continue;
      const child = this.#child(from, record);
      if (child >= 0 && table.directories[child * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.OMITTED) continue;
      records.push(record);
    }
    return { directory, from, records };
  }

  node({ from }: Place, record: number): TreeNode {
    const { table, groups } = this.#result;
    const at = record * RECORD_WORDS;
    const child = this.#child(from, record);
    const group = child < 0 && from.records[at + R.NLINK]! > 1 ? groups.get(linkKey(from, record)) : undefined;
    return nodeOfRecord(from, record, { group, subtree: child < 0 ? null : treeOf(table, child) });
  }

  /** The number of a directory's record in this scan, -1 for other entries. */
  #child(from: ScanTable, record: number): number {
    const at = record * RECORD_WORDS;
    if (from.records[at + R.MODE]! >>> 12 !== TYPE.DIRECTORY) return -1;
    const sub = from.records[at + R.SUB]!;
    return from === this.#result.table ? sub : this.#newOfOld.get(sub)!;
  }
}

function differingRecords(
  sides: { now: ScannedDirectories; was: ScannedDirectories },
  own: Uint8Array,
  theirs: Uint8Array,
): Iterable<NodePair> | undefined {
  const a = sides.now.at(own);
  const b = sides.was.at(theirs);
  return a === null || b === null ? undefined : differingOf(sides, a, b);
}

function* differingOf(
  sides: { now: ScannedDirectories; was: ScannedDirectories },
  a: Place,
  b: Place,
): Generator<NodePair> {
  let i = 0;
  let j = 0;
  while (i < a.records.length || j < b.records.length) {
    const x = a.records[i];
    const y = b.records[j];
    const order = x === undefined ? 1 : y === undefined ? -1 : compareNames(a.from, x, b.from, y);
    if (order !== 0 || !saySame({ table: a.from, record: x! }, { table: b.from, record: y! })) {
      yield {
        before: order <= 0 ? sides.now.node(a, x!) : null,
        after: order >= 0 ? sides.was.node(b, y!) : null,
      };
    }
    if (order <= 0) i++;
    if (order >= 0) j++;
  }
}

/** True if two records certainly describe the same state: two plain files with equal words. */
function saySame(a: { table: ScanTable; record: number }, b: { table: ScanTable; record: number }): boolean {
  const [x, y] = [a.record * RECORD_WORDS, b.record * RECORD_WORDS];
  const [words, others] = [a.table.records, b.table.records];
  if (words[x + R.MODE]! >>> 12 !== TYPE.FILE) return false;
  if ((a.table.recordFlags(a.record) | b.table.recordFlags(b.record)) & FLAG.EXTRAS) return false;
  for (let i = 0; i < STATE.length; i++) if (words[x + STATE[i]!] !== others[y + STATE[i]!]) return false;
  return true;
}

const FACTS = [R.MODE, R.UID, R.GID, R.SIZE, R.SIZE + 1, R.MTIME, R.MTIME + 1, R.MTIME_NS];
const STATE = Uint8Array.from([...FACTS, ...Array.from({ length: 8 }, (_, i) => R.HASH + i)]);

function treeOf(table: ScanTable, directory: number): Uint8Array {
  const at = (directory * DIRECTORY_WORDS + D.TREE) * 4;
  return table.directoryBytes.subarray(at, at + 32);
}

function keyOf(reference: Uint8Array): string {
  return Buffer.from(reference.buffer, reference.byteOffset, 32).toString("latin1");
}
