import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { ORDINARY_USER } from "../../test/fixtures/loop-file-system.ts";
import { whyProcStays, withoutProc } from "../../test/fixtures/without-proc.ts";
import { changingInside, makePrivate } from "./owner-writes.ts";
import { openDirectory, syscalls } from "./linux/syscalls.ts";

test("changingInside restores the directory's mode and times if the work fails", (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-inside-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  fs.utimesSync(folder, 1000, 2000);
  fs.chmodSync(folder, 0o555);
  const fd = openDirectory(folder);
  const failing = (): void => {
    assert.equal(fs.statSync(folder).mode & 0o7777, 0o755);
    fs.writeFileSync(path.join(folder, "made"), "");
    throw new Error("in the midst");
  };
  assert.throws(() => changingInside(syscalls(), fd, failing), /in the midst/);
  const { mode, mtimeMs } = fs.statSync(folder);
  assert.deepEqual([mode & 0o7777, mtimeMs, fs.readdirSync(folder)], [0o555, 2_000_000, ["made"]]);
  fs.closeSync(fd);
  assert.throws(() => changingInside(syscalls(), fd, () => assert.fail("it was changed")), { message: /EBADF/ });
});

test("makePrivate changes a directory with mode 0, and refuses a symbolic link", (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-private-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  const [closed, theirs, link] = ["closed", "theirs", "link"].map((name) => path.join(folder, name)) as [
    string,
    string,
    string,
  ];
  fs.mkdirSync(closed);
  fs.chmodSync(closed, 0);
  fs.mkdirSync(theirs);
  fs.chmodSync(theirs, 0o755);
  fs.symlinkSync("theirs", link);
  makePrivate(closed);
  assert.throws(() => makePrivate(link), { code: "ENOTDIR" });
  assert.deepEqual(
    [closed, theirs].map((each) => fs.statSync(each).mode & 0o777),
    [0o700, 0o755],
  );
});

const [major, minor] = os.release().split(".").map(Number) as [number, number];
const hasCall = major > 6 || (major === 6 && minor >= 6);

test(
  "removeAll removes a directory with mode 0 if /proc is missing",
  { skip: whyProcStays() ?? (hasCall ? false : "needs Linux 6.6") },
  (t) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-closed-"));
    t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
    fs.mkdirSync(path.join(folder, "top/closed/inner"), { recursive: true });
    for (const name of ["top/closed/inner", "top/closed", "top", "."])
      fs.chownSync(path.join(folder, name), ORDINARY_USER, ORDINARY_USER);
    for (const name of ["top/closed/inner", "top/closed"]) fs.chmodSync(path.join(folder, name), 0);
    const imports = { removals: new URL("remove-all.ts", import.meta.url).href };
    withoutProc(imports, `removals.removeAll(${JSON.stringify(path.join(folder, "top"))});`, ORDINARY_USER);
    assert.deepEqual(fs.readdirSync(folder), []);
  },
);
