import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { putDisposable } from "./disposable-file.ts";

function folder(t: { after(work: () => void): void }): string {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-disposable-"));
  t.after(() => fs.rmSync(place, { recursive: true }));
  return place;
}

test("putDisposable replaces the previous file and leaves no temporary file", (t) => {
  const place = folder(t);
  const [temporary, file] = [path.join(place, "file.1.tmp"), path.join(place, "file")];
  for (const content of ["first", "second", "third"]) {
    fs.writeFileSync(temporary, content);
    putDisposable(temporary, file);
    assert.equal(fs.readFileSync(file, "utf8"), content);
    assert.deepEqual(fs.readdirSync(place), ["file"]);
  }
});

test("putDisposable keeps the temporary file if the rename fails", (t) => {
  const place = folder(t);
  const temporary = path.join(place, "file.1.tmp");
  fs.writeFileSync(temporary, "kept");
  assert.throws(() => putDisposable(temporary, path.join(place, "gone/file")), { code: "ENOENT" });
  assert.equal(fs.readFileSync(temporary, "utf8"), "kept");
});
