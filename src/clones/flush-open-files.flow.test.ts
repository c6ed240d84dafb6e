import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { makeNode } from "../workspace/store/testing-edits.ts";
import { TYPE } from "../fs/linux/syscalls.ts";
import { flushOpenFiles } from "./flush-open-files.ts";

test("flushOpenFiles flushes only regular files that are open for writing", async (t) => {
  const folder = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), "cairn-flush-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  const at = (name: string): string => path.join(folder, name);
  fs.mkdirSync(at("below"));
  for (const name of ["below/written", "read", "closed", "removed"]) fs.writeFileSync(at(name), name);
  makeNode(at("pipe"), TYPE.PIPE);
  assert.deepEqual(await flushOpenFiles(Buffer.from(folder)), []);
  const open = [
    fs.openSync(at("below/written"), "a"),
    fs.openSync(at("below/written"), "r+"),
    fs.openSync(at("read"), "r"),
    fs.openSync(at("pipe"), "r+"),
    fs.openSync(at("removed"), "r+"),
  ];
  try {
    fs.rmSync(at("removed"));
    fs.symlinkSync("read", at("removed"));
    const flushed = await flushOpenFiles(Buffer.from(folder));
    assert.deepEqual(
      flushed.map((each) => Buffer.from(each).toString()),
      ["below/written"],
    );
  } finally {
    for (const fd of open) fs.closeSync(fd);
  }
});
