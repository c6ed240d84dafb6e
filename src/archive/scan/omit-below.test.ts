import assert from "node:assert/strict";
import { test } from "node:test";
import { allocateTable, D, DIRECTORY_FLAG, DIRECTORY_WORDS, R, RECORD_WORDS, ScanTable } from "../cache/scan-table.ts";
import { TYPE } from "../../fs/linux/syscalls.ts";
import { findLinkGroups } from "./link-groups.ts";
import { omitBelow, eachRecord } from "./summary.ts";

/** A directory of two names of one file, all of its records there. */
function addDirectory(table: ScanTable, parent: number, path: string): number {
  const directory = table.takeDirectory();
  const at = table.takeNames(path.length);
  table.names.write(path, at, "latin1");
  const words = [D.PARENT, parent, D.PATH, at, D.PATH_LENGTH, path.length, D.FLAGS, DIRECTORY_FLAG.LINKED, D.COUNT, 2];
  const first = table.takeRecords(2);
  table.directories[directory * DIRECTORY_WORDS + D.FIRST] = first;
  for (let i = 0; i < words.length; i += 2) table.directories[directory * DIRECTORY_WORDS + words[i]!] = words[i + 1]!;
  for (const [i, name] of ["a", "b"].entries()) {
    const base = (first + i) * RECORD_WORDS;
    table.records[base] = table.takeNames(1);
    table.names.write(name, table.records[base]!, "latin1");
    table.records[base + R.NAME_FLAGS] = 1;
    table.records[base + R.MODE] = (TYPE.FILE << 12) | 0o644;
    table.records[base + R.NLINK] = 6;
    table.records[base + R.INO] = 77;
  }
  return directory;
}

test("omitBelow removes the entries below an omitted directory from the scan", () => {
  const table = new ScanTable(allocateTable(100));
  addDirectory(table, 0, "");
  const gone = addDirectory(table, 0, "gone");
  addDirectory(table, addDirectory(table, gone, "gone/in"), "gone/in/it");
  addDirectory(table, 0, "there");
  table.addDirectoryFlag(gone, DIRECTORY_FLAG.OMITTED);
  omitBelow(table);
  const paths: string[] = [];
  eachRecord(table, null, (entry) => paths.push(entry.path().toString("latin1")));
  assert.deepEqual(paths, ["a", "b", "there/a", "there/b"]);
  assert.deepEqual(
    [...findLinkGroups(table, null).values()].map(({ members, first }) => [members, first.toString()]),
    [[4, "a"]],
  );
});
