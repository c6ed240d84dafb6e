import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { openDirectory, syscalls } from "../../fs/linux/syscalls.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import { temporaryFolder } from "../../workspace/store/testing-store.ts";
import { LeftEntries } from "./left-entries.ts";

test("LeftEntries reports a name longer than any system allows as absent", (t) => {
  const folder = temporaryFolder(t);
  fs.mkdirSync(path.join(folder, "d"));
  const fd = openDirectory(folder);
  t.after(() => fs.closeSync(fd));
  const left = new LeftEntries(syscalls(), new BlobIndex());
  for (const length of [300, 1023, 1024, 5000]) {
    const name = Buffer.alloc(length, "d");
    assert.deepEqual([left.enters(fd, name), left.opens(fd, name)], [false, false], `${length}`);
    left.clear(fd, name);
  }
  assert.equal(left.enters(fd, Buffer.from("d")), true);
});
