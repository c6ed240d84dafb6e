import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Writable } from "node:stream";
import { test } from "node:test";
import { whyProcStays, withoutProc } from "../../test/fixtures/without-proc.ts";
import { eventually } from "../../test/fixtures/eventually.ts";
import { temporaryName } from "./durable.ts";
import { processFacts } from "./lock-owner.ts";
import {
  deadWorkDirectories,
  leaveWorkDirectory,
  newWorkDirectory,
  PROBE,
  removeDeadWorkDirectories,
  removeLeftovers,
} from "./work-directory.ts";

test("deadWorkDirectories lists directories of ended processes, and of other containers only if they are old", (t) => {
  const parent = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-work-"));
  t.after(() => fs.rmSync(parent, { recursive: true, force: true }));
  const own = newWorkDirectory(parent);
  const { pid } = spawnSync("true");
  const gone = own.replace(`-${process.pid}-`, `-${pid}-`);
  const container = gone.replace(/x\d+-/, "x1234-");
  const longGone = `${container}1`;
  for (const each of [own, gone, container, longGone]) fs.mkdirSync(each);
  const old = new Date(Date.now() - 2 * 3600 * 1000);
  fs.utimesSync(longGone, old, old);
  assert.deepEqual(deadWorkDirectories(parent).toSorted(), [gone, longGone].toSorted());
});

test("deadWorkDirectories lists the directory of a zombie process", async (t) => {
  const parent = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-work-"));
  t.after(() => fs.rmSync(parent, { recursive: true, force: true }));
  // The shell's child ends once its parent is another program, which never waits for it.
  const idle = spawn("sh", ["-c", "cat <&3 & echo $!; exec sleep 60"], { stdio: ["ignore", "pipe", "ignore", "pipe"] });
  t.after(() => idle.kill());
  const pid = Number((await idle.stdout!.take(1).toArray())[0]);
  const isSleep = (): boolean => fs.readFileSync(`/proc/${idle.pid}/comm`, "utf8") === "sleep\n";
  await eventually("the shell becomes another program", isSleep);
  (idle.stdio[3] as Writable).end();
  await eventually("the process ends", () => processFacts(pid)?.state === "Z");
  const own = newWorkDirectory(parent);
  const zombie = own.replace(
    `-${process.pid}-${processFacts(process.pid)!.startTime}-`,
    `-${pid}-${processFacts(pid)!.startTime}-`,
  );
  for (const each of [own, zombie]) fs.mkdirSync(each);
  assert.deepEqual(deadWorkDirectories(parent), [zombie]);
});

test("removeDeadWorkDirectories removes a directory that its running process gave up with leaveWorkDirectory", (t) => {
  const parent = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-work-"));
  t.after(() => fs.rmSync(parent, { recursive: true, force: true }));
  const own = newWorkDirectory(parent);
  fs.mkdirSync(own);
  fs.writeFileSync(path.join(own, "file"), "");
  leaveWorkDirectory(own);
  const [left, ...others] = deadWorkDirectories(parent);
  assert.deepEqual([fs.readdirSync(left!), others], [["file"], []]);
  removeDeadWorkDirectories(parent, (directory) => directory === left);
  assert.ok(fs.existsSync(left!));
  removeDeadWorkDirectories(parent);
  assert.deepEqual(fs.readdirSync(parent), []);
});

test("deadWorkDirectories skips another container's directory if a file inside was changed recently", (t) => {
  const parent = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-work-"));
  t.after(() => fs.rmSync(parent, { recursive: true, force: true }));
  const old = new Date(Date.now() - 2 * 3600 * 1000);
  const far = new Date(Date.now() + 9000 * 3600 * 1000);
  const foreign = (written: Date): string => {
    const directory = newWorkDirectory(parent).replace(/x\d+-/, "x1234-");
    fs.mkdirSync(path.join(directory, "packs/ab"), { recursive: true });
    fs.writeFileSync(path.join(directory, "packs/ab/pack"), "being written");
    fs.utimesSync(path.join(directory, "packs/ab/pack"), written, written);
    for (const each of ["packs/ab", "packs", ""]) fs.utimesSync(path.join(directory, each), old, old);
    return directory;
  };
  foreign(new Date());
  // A restored file may have been given any time.
  const dead = [foreign(old), foreign(far)];
  assert.deepEqual(deadWorkDirectories(parent).toSorted(), dead.toSorted());
});

test(
  "deadWorkDirectories skips the directory of a running process if /proc is missing",
  { skip: whyProcStays() ?? false },
  (t) => {
    const parent = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-work-"));
    t.after(() => fs.rmSync(parent, { recursive: true, force: true }));
    const body = `const own = work.newWorkDirectory(${JSON.stringify(parent)});
const of = (pid) => own.replace("-" + process.pid + "-", "-" + pid + "-");
const [gone, longGone] = [of(${spawnSync("true").pid}), of(${spawnSync("true").pid})];
for (const each of [own, of(${process.pid}), gone, longGone]) fs.mkdirSync(each);
fs.utimesSync(longGone, 1, 1);
return work.deadWorkDirectories(${JSON.stringify(parent)}).map((each) => each === longGone);`;
    const imports = { fs: "node:fs", work: new URL("work-directory.ts", import.meta.url).href };
    assert.deepEqual(withoutProc(imports, body), [true]);
  },
);

test("removeLeftovers with the lock removes all leftovers except probes, which other processes make without it", (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-leftovers-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  const [tried, left] = [`${temporaryName()}${PROBE}`, temporaryName()];
  for (const name of [tried, left]) fs.mkdirSync(path.join(folder, name));
  assert.deepEqual(removeLeftovers(folder, { exclusive: true }), [left]);
  assert.deepEqual(fs.readdirSync(folder), [tried]);
});
