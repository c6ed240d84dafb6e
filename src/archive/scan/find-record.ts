import { D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { hex, latin1 } from "../../formats/bytes.ts";
import { signedWide, TYPE, wide } from "../../fs/linux/syscalls.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { nodeOfRecord } from "./record-node.ts";
import type { ScanResult } from "./scan.ts";

/** Facts of lstat when an entry was saved, which show whether it is still the same, unchanged entry. */
export interface Identity {
  /** decimal digits */
  inode: string;
  mode: number;
  size: number;
  mtimeSec: number;
  mtimeNs: number;
  ctimeSec: number;
  ctimeNs: number;
  links: number;
}

/** A record of a scan and the table that holds it. */
export interface FoundRecord {
  table: ScanTable;
  record: number;
  flags: number;
}

/** Finds an entry of a finished scan by its path; null if the scan has none. */
export class RecordFinder {
  readonly #result: ScanResult;
  readonly #newOfOld: ReadonlyMap<number, number>;
  readonly #unseen: ReadonlySet<string>;
  #last: { path: string; directory: number } = { path: "", directory: 0 };

  constructor(result: ScanResult) {
    this.#result = result;
    this.#newOfOld = result.table.numbersByOld();
    this.#unseen = new Set(result.notes.omitted.map(({ path }) => latin1(path)));
  }

  find(path: Uint8Array): FoundRecord | null {
    const bytes = Buffer.from(path.buffer, path.byteOffset, path.byteLength);
    const slash = bytes.lastIndexOf(47);
    const directory = this.directory(bytes.subarray(0, Math.max(slash, 0)));
    return directory === null ? null : this.#entry(directory, bytes.subarray(slash + 1));
  }

  /** Returns the node of an entry, without its link group and subtree; null if the entry is not part of the state. */
  nodeOf(path: Uint8Array): TreeNode | null {
    const found = this.find(path);
    if (found === null || (found.flags & FLAG.OMITTED) !== 0) return null;
    return nodeOfRecord(found.table, found.record, { group: undefined, subtree: null });
  }

  /** Returns the SHA-256 of a file's content in hex; null if the entry is no file of the state. */
  hashOf(path: Uint8Array): string | null {
    const found = this.find(path);
    if (found === null || (found.flags & FLAG.OMITTED) !== 0) return null;
    const { recordBytes, records } = found.table;
    const base = found.record * RECORD_WORDS;
    if (records[base + R.MODE]! >>> 12 !== TYPE.FILE) return null;
    return hex(recordBytes.subarray((base + R.HASH) * 4, (base + R.HASH + 8) * 4));
  }

  /** True for an entry that exists but could not be read, listed or even looked at. */
  isOmitted(path: Uint8Array): boolean {
    const found = this.find(path);
    if (found === null) return this.#unseen.has(latin1(path));
    if ((found.flags & FLAG.OMITTED) !== 0) return true;
    const directory = this.directory(Buffer.from(path));
    const { directories } = this.#result.table;
    return directory !== null && (directories[directory * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.OMITTED) !== 0;
  }

  /** True for an entry some of whose extended attributes could not be read. */
  isUnread(path: Uint8Array): boolean {
    return ((this.find(path)?.flags ?? 0) & FLAG.UNREAD) !== 0;
  }

  /** Number of a directory by its path, or null. */
  directory(path: Buffer): number | null {
    const key = path.toString("latin1");
    if (key === this.#last.path) return this.#last.directory;
    let directory = 0;
    for (const part of key === "" ? [] : key.split("/")) {
      const found = this.#entry(directory, Buffer.from(part, "latin1"));
      if (found === null) return null;
      const base = found.record * RECORD_WORDS;
      if (found.table.records[base + R.MODE]! >>> 12 !== TYPE.DIRECTORY) return null;
      const sub = found.table.records[base + R.SUB]!;
      directory = found.table === this.#result.table ? sub : (this.#newOfOld.get(sub) ?? -1);
      if (directory < 0) return null;
    }
    this.#last = { path: key, directory };
    return directory;
  }

  /** Returns the id of the tree of the directory that has an entry; null if the scan has no such directory. */
  treeAbove(path: Uint8Array): Uint8Array | null {
    const directory = this.directory(Buffer.from(path.subarray(0, Math.max(path.lastIndexOf(47), 0))));
    if (directory === null) return null;
    const { buffer, byteOffset } = this.#result.table.directories;
    return new Uint8Array(buffer, byteOffset + (directory * DIRECTORY_WORDS + D.TREE) * 4, 32).slice();
  }

  /** True if ignore rules hid an entry in this directory or below. */
  hidesIgnored(path: Uint8Array): boolean {
    const start = this.directory(Buffer.from(path));
    if (start === null) return false;
    const { table, directories } = this.#result;
    const below = new Set([start]);
    for (let d = start; d < directories; d++) {
      const base = d * DIRECTORY_WORDS;
      if (d !== start && !below.has(table.directories[base + D.PARENT]!)) continue;
      below.add(d);
      if (table.directories[base + D.IGNORED]! > 0) return true;
    }
    return false;
  }

  #entry(directory: number, name: Buffer): FoundRecord | null {
    const { table, old } = this.#result;
    const base = directory * DIRECTORY_WORDS;
    const from = table.directories[base + D.FLAGS]! & DIRECTORY_FLAG.SAME ? old! : table;
    const record = table.recordOf(directory, name, from);
    if (record < 0 || from.records[record * RECORD_WORDS + R.MODE] === 0) return null;
    return { table: from, record, flags: from.recordFlags(record) };
  }
}

export function identityOf({ table, record }: FoundRecord): Identity {
  const words = table.records;
  const base = record * RECORD_WORDS;
  return {
    inode: (BigInt(words[base + R.INO + 1]!) * 4294967296n + BigInt(words[base + R.INO]!)).toString(),
    mode: words[base + R.MODE]!,
    size: wide(words, base + R.SIZE),
    mtimeSec: signedWide(words, base + R.MTIME),
    mtimeNs: words[base + R.MTIME_NS]!,
    ctimeSec: signedWide(words, base + R.CTIME),
    ctimeNs: words[base + R.CTIME_NS]!,
    links: words[base + R.NLINK]!,
  };
}
