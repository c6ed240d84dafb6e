import assert from "node:assert/strict";
import { test } from "node:test";
import { isBackupOperand, isFolderOperand, isLocation, type Operand, readOperand } from "./operand.ts";

/** Operands as people write them, and the ways to read them. */

function point(point: string, path = ""): Operand {
  return { kind: "point", point, path };
}

test("a point may have a path, and a time keeps its colons", () => {
  assert.deepEqual(readOperand("head~1"), [point("head~1")]);
  assert.deepEqual(readOperand("14:30"), [point("14:30")]);
  assert.deepEqual(readOperand("latest:src/")[0], point("latest", "src"));
  assert.deepEqual(readOperand("latest:./a:b")[0], point("latest", "a:b"));
  assert.deepEqual(readOperand("2026-11-23 14:00:src")[0], point("2026-11-23 14:00", "src"));
  assert.deepEqual(readOperand("latest:")[0], point("latest"));
});

test("the word before the first colon may also name another workspace", () => {
  assert.deepEqual(readOperand("try1:latest"), [point("try1", "latest"), point("try1:latest")]);
  assert.deepEqual(readOperand("try1:head~1:src/a.ts")[1], point("try1:head~1", "src/a.ts"));
  assert.deepEqual(readOperand("try1:"), [point("try1"), point("try1:")]);
});

test("a folder begins with a slash, a dot with a slash or ~, and may be followed by a point of its workspace", () => {
  for (const folder of [".", "..", "./src", "../other", "/srv/www", "~", "~/notes"])
    assert.deepEqual(readOperand(folder), [{ kind: "folder", folder }]);
  assert.deepEqual(readOperand("/srv/w:latest:src").slice(1), [
    point("/srv/w:latest", "src"),
    point("/srv/w:latest:src"),
  ]);
  for (const word of ["src", ".git", "~1", "a/b"]) assert.equal(isFolderOperand(word), false);
});

test("a snapshot is named after backup:, and a repository's location is recognised", () => {
  assert.deepEqual(readOperand("backup:latest"), [{ kind: "backup", snapshot: "latest", path: "" }]);
  assert.deepEqual(readOperand("backup:1a2b3c4d:src/a"), [{ kind: "backup", snapshot: "1a2b3c4d", path: "src/a" }]);
  assert.deepEqual(readOperand("backup:10:00:src"), [{ kind: "backup", snapshot: "10:00", path: "src" }]);
  assert.equal(isBackupOperand("backups:latest"), false);
  // A point may have the tag `backup`.
  assert.deepEqual(readOperand("backup"), [point("backup")]);
  for (const text of ["backup:", "backup::src"])
    assert.throws(() => readOperand(text), { code: "usage", hint: /backup:latest/ });
  for (const text of ["rest:https://host/", "s3:host/bucket", "sftp:me@host:/srv"])
    assert.equal(isLocation(text), true);
  assert.equal(isLocation("latest:src"), false);
});
