import { CairnError } from "../../errors.ts";
import type { TreeNode } from "../../formats/tree.ts";
import { D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS } from "../../fs/scan-table.ts";
import { TYPE } from "../../fs/syscalls.ts";
import type { TreeSource } from "../engine.ts";
import { inodeKey, nodeOfRecord } from "./record-node.ts";
import type { ScanResult } from "./scan.ts";

/** A scanned folder as a readable state, without anything having been stored. Its files are read from the folder itself. */
export function presentSource(result: ScanResult): TreeSource {
  const { table } = result;
  const directories = new Map<string, number>();
  const newOfOld = new Map<number, number>();
  for (let d = 0; d < result.directories; d++) {
    directories.set(keyOf(treeOf(result, d)), d);
    const old = table.directories[d * DIRECTORY_WORDS + D.OLD]!;
    if (old !== 0) newOfOld.set(old - 1, d);
  }
  return {
    root: result.tree,
    list: (reference) => {
      const directory = directories.get(keyOf(reference));
      if (directory === undefined) throw new CairnError("internal", "the scan has no such directory");
      return nodesOf(result, directory, newOfOld);
    },
    content: () => {
      throw new CairnError("internal", "a scan holds no content");
    },
  };
}

function nodesOf(result: ScanResult, directory: number, newOfOld: ReadonlyMap<number, number>): TreeNode[] {
  const { table, old, groups } = result;
  const base = directory * DIRECTORY_WORDS;
  const same = (table.directories[base + D.FLAGS]! & DIRECTORY_FLAG.SAME) !== 0;
  const from = same ? old! : table;
  const first = table.directories[base + D.FIRST]!;
  const nodes: TreeNode[] = [];
  for (let record = first; record < first + table.directories[base + D.COUNT]!; record++) {
    const at = record * RECORD_WORDS;
    const mode = from.records[at + R.MODE]!;
    if (mode === 0 || from.recordFlags(record) & FLAG.OMITTED) continue;
    const sub = from.records[at + R.SUB]!;
    const child = mode >>> 12 === TYPE.DIRECTORY ? (same ? newOfOld.get(sub)! : sub) : -1;
    if (child >= 0 && table.directories[child * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.OMITTED) continue;
    const group =
      child < 0 && from.records[at + R.NLINK]! > 1
        ? groups.get(inodeKey(table.directories[base + D.DEVICE]!, from.records, at))
        : undefined;
    nodes.push(nodeOfRecord(from, record, { group, subtree: child < 0 ? null : treeOf(result, child) }));
  }
  return nodes;
}

function treeOf({ table }: ScanResult, directory: number): Uint8Array {
  const at = (directory * DIRECTORY_WORDS + D.TREE) * 4;
  return table.directoryBytes.subarray(at, at + 32);
}

function keyOf(reference: Uint8Array): string {
  return Buffer.from(reference.buffer, reference.byteOffset, 32).toString("latin1");
}
