import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { openRegular, readRegular, writeRegular } from "./regular-file.ts";

test("readRegular and writeRegular refuse a pipe, a symbolic link, a folder or a device without blocking", (t) => {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-regular-"));
  t.after(() => fs.rmSync(place, { recursive: true }));
  const at = (name: string): string => path.join(place, name);
  fs.writeFileSync(at("file"), "content");
  fs.symlinkSync("file", at("link"));
  fs.symlinkSync("circle", at("circle"));
  assert.equal(spawnSync("mkfifo", [at("pipe")]).status, 0);

  const wrong: [string, RegExp, RegExp | null][] = [
    [at("pipe"), /is a pipe, socket or device; a regular/, /is a pipe, socket or device; a regular/],
    [at("link"), /is a link; a regular/, null],
    [at("circle"), /is a link; a regular/, /is a link in a loop of links; a regular/],
    [place, /is a folder; a regular/, /is a folder; a regular/],
    ["/dev/zero", /is a pipe, socket or device; a regular/, /is a pipe, socket or device; a regular/],
  ];
  for (const [file, kept, named] of wrong) {
    assert.throws(() => readRegular(file), { code: "damaged", message: kept }, file);
    assert.throws(() => writeRegular(file, ""), { code: "damaged", message: kept }, file);
    if (named !== null)
      assert.throws(() => readRegular(file, { named: true }), { code: "usage", message: named }, file);
  }
  assert.equal(readRegular(at("link"), { named: true }).toString(), "content");
  assert.throws(() => openRegular(at("none")), { code: "ENOENT" });
  assert.throws(() => readRegular(at("file"), { limit: 6 }), {
    code: "damaged",
    message: /has 7 bytes; at most 6/,
  });
  writeRegular(at("file"), "new");
  assert.equal(readRegular(at("file"), { limit: 3 }).toString(), "new");
});
