import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../test/fixtures/loop-file-system.ts";
import { fileSystemId } from "./file-system-id.ts";

test("a file system has one id wherever it is asked, and none where there is no folder", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-fsid-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const id = fileSystemId(Buffer.from(folder));
  assert.ok(id !== null && id !== "");
  mkdirSync(join(folder, "inner"));
  assert.equal(fileSystemId(Buffer.from(join(folder, "inner"))), id);
  assert.equal(fileSystemId(Buffer.from(join(folder, "absent"))), null);
});

test("file systems of one type have ids of their own when each was made anew", (t) => {
  const ids = [loopFileSystem(t, "btrfs"), loopFileSystem(t, "btrfs")].map((volume) =>
    volume === null ? null : fileSystemId(Buffer.from(volume.root)),
  );
  if (ids.includes(null)) return;
  assert.notEqual(ids[0], ids[1]);
});
