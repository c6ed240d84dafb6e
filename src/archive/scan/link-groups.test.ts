import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { allocateTable, D, DIRECTORY_FLAG, EXTRA, R, RECORD_WORDS, ScanTable } from "../cache/scan-table.ts";
import { TYPE } from "../../fs/linux/syscalls.ts";
import { findLinkGroups } from "./link-groups.ts";

interface Name {
  name: string;
  inode: number;
  /** words that are not those of the others */
  words?: Partial<Record<keyof typeof R, number>>;
  attribute?: string;
  holes?: string;
}

/** A folder of files with several names each. */
function folderOf(names: readonly Name[]): ScanTable {
  const table = new ScanTable(allocateTable(100));
  table.takeDirectory();
  const first = table.takeRecords(names.length);
  table.directories[D.FIRST] = first;
  table.directories[D.COUNT] = names.length;
  table.directories[D.FLAGS] = DIRECTORY_FLAG.LINKED;
  for (const [i, { name, inode, words = {}, attribute, holes }] of names.entries()) {
    const base = (first + i) * RECORD_WORDS;
    table.records[base] = table.takeNames(name.length);
    table.names.write(name, table.records[base]!, "latin1");
    table.records[base + R.NAME_FLAGS] = name.length;
    const all = {
      MODE: (TYPE.FILE << 12) | 0o644,
      NLINK: 2,
      SIZE: 9,
      MTIME: 1_700_000_000,
      HASH: 7,
      INO: inode,
      ...words,
    };
    for (const [word, value] of Object.entries(all)) table.records[base + R[word as keyof typeof R]] = value;
    table.setExtras(first + i, [
      ...(attribute === undefined ? [] : [{ tag: EXTRA.XATTR, value: Buffer.from(`user.a\0${attribute}`) }]),
      ...(holes === undefined ? [] : [{ tag: EXTRA.HOLES, value: Buffer.from(holes) }]),
    ]);
  }
  return table;
}

function groupsIn(names: readonly Name[]): [number, string][] {
  return [...findLinkGroups(folderOf(names), null).values()].map(({ members, first }) => [
    members,
    Buffer.from(first).toString(),
  ]);
}

void describe("findLinkGroups", () => {
  test("findLinkGroups groups two names of one inode although the inode got another link between the readings", () => {
    const names = [
      { name: "a", inode: 5, words: { CTIME_NS: 1 } },
      { name: "b", inode: 5, words: { CTIME_NS: 2, NLINK: 3 }, holes: "another answer" },
    ];
    assert.deepEqual(groupsIn(names), [[2, "a"]]);
  });

  test("findLinkGroups separates two files of which one has the former inode number of the other", () => {
    const names = ["a", "b", "c", "d"].map((name) => ({ name, inode: 5, words: { HASH: name < "c" ? 1 : 2 } }));
    assert.deepEqual(groupsIn(names), [
      [2, "a"],
      [2, "c"],
    ]);
  });

  test("findLinkGroups separates entries of one inode number if any recorded attribute differs", () => {
    const others: Omit<Name, "name" | "inode">[] = [
      { words: { HASH: 8 } },
      { words: { SIZE: 10 } },
      { words: { MTIME_NS: 1 } },
      { words: { MODE: (TYPE.FILE << 12) | 0o600 } },
      { words: { MODE: (TYPE.LINK << 12) | 0o644 } },
      { words: { UID: 1 } },
      { words: { GID: 1 } },
      { words: { DEVICE: 1 } },
      { attribute: "value" },
    ];
    for (const other of others)
      assert.deepEqual(
        groupsIn([
          { name: "a", inode: 5 },
          { name: "b", inode: 5, ...other },
        ]),
        [],
        JSON.stringify(other),
      );
  });
});
