import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

const SCRIPT = path.join(import.meta.dirname, "install-peers");

test("peers that cannot be built here are named with the reason, each of them", (t) => {
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
  assert.deepEqual(readdirSync(into), []);
  const other = spawnSync("/bin/sh", [SCRIPT, into, "other"], { env: { PATH: bare }, encoding: "utf8" });
  assert.match(other.stderr, /^ {2}other: no such peer$/m);
  assert.equal(spawnSync("/bin/sh", [SCRIPT], { env: { PATH: bare } }).status, 2);
});
