import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { probeHolder } from "./probe.ts";

test("probeHolder removes only old leftovers of killed probes, in the folder and at the mount's root", async (t) => {
  const root = mkdtempSync(join(tmpdir(), "cairn-probe-"));
  const isMounted = spawnSync("mount", ["-t", "tmpfs", "none", root]).status === 0;
  t.after(() => {
    if (isMounted) spawnSync("umount", [root]);
    rmSync(root, { recursive: true });
  });
  const place = join(root, "points");
  mkdirSync(place);
  const hoursAgo = Date.now() / 1000 - 7200;
  // No process has such a number; this one is at work.
  const [dead, alive] = [4194305, process.ppid];
  const make = (directory: string, name: string, seconds = hoursAgo): void => {
    mkdirSync(join(directory, name));
    writeFileSync(join(directory, name, "held"), "x");
    utimesSync(join(directory, name), seconds, seconds);
  };
  const stay = [`.cairn-tmp-${dead}-0123456789abcdef`, `.cairn-tmp-${alive}-0-probe`, "work-probe"];
  const theirs = `.cairn-tmp-${dead}-1-probe`;
  const young = `.cairn-tmp-${dead}-2-probe`;
  for (const directory of [place, root]) {
    make(directory, `.cairn-tmp-${dead}-0-probe`);
    for (const name of stay) make(directory, name);
    make(directory, young, Date.now() / 1000);
    if (process.geteuid?.() !== 0) continue;
    make(directory, theirs);
    chownSync(join(directory, theirs), 65534, 65534);
  }
  await probeHolder("reflink-copy", { folder: Buffer.from(place), place });
  const left = [...stay, young, ...(process.geteuid?.() === 0 ? [theirs] : [])].toSorted();
  assert.deepEqual(readdirSync(place).toSorted(), left);
  if (isMounted) assert.deepEqual(readdirSync(root).toSorted(), [...left, "points"].toSorted());
});
