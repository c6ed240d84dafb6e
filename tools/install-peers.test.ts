import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

const SCRIPT = path.join(import.meta.dirname, "install-peers");

test("install-peers names each program that it cannot build, with the reason", (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "cairn-peers-"));
  t.after(() => rmSync(folder, { recursive: true }));
  // A search path without builders.
  const bare = path.join(folder, "bare");
  const into = path.join(folder, "into");
  for (const name of ["mkdir", "sed"]) {
    spawnSync("mkdir", ["-p", bare]);
    symlinkSync(
      spawnSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).stdout.trim(),
      path.join(bare, name),
    );
  }
  const { status, stderr } = spawnSync("/bin/sh", [SCRIPT, into], { env: { PATH: bare }, encoding: "utf8" });
  assert.equal(status, 1);
  for (const name of ["restic", "juicefs", "kopia", "rclone"])
    assert.match(stderr, new RegExp(`^  ${name}: there is no Go$`, "m"));
  assert.match(stderr, /^ {2}rustic: there is no Rust$/m);
  for (const name of ["claude", "codex", "gemini", "opencode"])
    assert.match(stderr, new RegExp(`^  ${name}: there is no npm$`, "m"));
  assert.deepEqual(readdirSync(into), []);
  const other = spawnSync("/bin/sh", [SCRIPT, into, "other"], { env: { PATH: bare }, encoding: "utf8" });
  assert.match(other.stderr, /^ {2}other: no such peer$/m);
  assert.equal(spawnSync("/bin/sh", [SCRIPT], { env: { PATH: bare } }).status, 2);
});

test("install-peers shows its usage and makes no folder for a word that begins with a dash", (t) => {
  const cwd = mkdtempSync(path.join(tmpdir(), "cairn-peers-"));
  t.after(() => rmSync(cwd, { recursive: true }));
  const run = (...words: string[]): [number | null, boolean, boolean] => {
    const { status, stdout, stderr } = spawnSync("/bin/sh", [SCRIPT, ...words], { cwd, encoding: "utf8" });
    const isUsage = (text: string): boolean => text.includes("tools/install-peers FOLDER [NAME...]");
    return [status, isUsage(stdout), isUsage(stderr)];
  };
  assert.deepEqual(run("--help"), [0, true, false]);
  assert.deepEqual(run("-h"), [0, true, false]);
  assert.deepEqual(run("--version"), [2, false, true]);
  assert.deepEqual(run("into", "--restic"), [2, false, true]);
  assert.deepEqual(readdirSync(cwd), []);
});
