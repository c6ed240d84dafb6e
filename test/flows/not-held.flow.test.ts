import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { LeftOut, StatusResult } from "../../src/contract/index.ts";
import { cairn, cairnOk, type Outcome, type RunOptions } from "../fixtures/command.ts";
import { exfat } from "../fixtures/exfat.ts";
import { newRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

/** Restores in place of what the folder's file system cannot hold: names that it refuses, files that are too large. */

/** Path and reason of each entry that could not be made. */
function notMade(done: Outcome): [string, string][] {
  assert.equal(done.status, 10, done.stdout + done.stderr);
  return (done.data["left_out"] as LeftOut[])
    .filter(({ aspects }) => aspects?.includes("type"))
    .map(({ path: where, reason }) => [where, reason]);
}

const REFUSED: [string, string][] = [
  ["dir-\\xff", "not_permitted"],
  ["in/name-\\xff", "not_permitted"],
];

test(
  "backup restore --in-place on exFAT leaves out names that exFAT refuses, also after a kill",
  { skip: process.getuid?.() !== 0 && "this is not root" },
  async (t) => {
    const root = exfat(t);
    if (root === null) return;
    const source = newFolder("source");
    fs.writeFileSync(path.join(source, "file"), "as it was");
    fs.mkdirSync(path.join(source, "in"));
    fs.writeFileSync(path.join(source, "in/new"), "new");
    const odd = (name: string, ...more: string[]): Buffer =>
      Buffer.concat([Buffer.from(path.join(source, name)), Buffer.of(0xff), Buffer.from(more.join(""))]);
    fs.mkdirSync(odd("dir-", "/deep"), { recursive: true });
    fs.writeFileSync(odd("dir-", "/deep/file"), "nowhere");
    fs.writeFileSync(odd("in/name-"), "nowhere");
    const place = await newRepository();
    const made = cairnOk(["backup", "create", source, ...place.options]).data["snapshot"];

    const folder = path.join(root, "folder");
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, "file"), "changed");
    fs.writeFileSync(path.join(folder, "more"), "more");
    cairnOk(["init", folder, "--control-dir", path.join(newFolder("control"), "here")]);
    const here: RunOptions = { cwd: folder };
    const { snapshot_id: id } = made as { snapshot_id: string };
    const args = ["backup", "restore", id, "--in-place", ...place.options];
    const textOf = (name: string): string => fs.readFileSync(path.join(folder, name), "utf8");
    const assertRestored = (context: string): void => {
      assert.deepEqual(
        [fs.readdirSync(folder).toSorted(), fs.readdirSync(path.join(folder, "in"))],
        [["file", "in"], ["new"]],
        context,
      );
      assert.deepEqual([textOf("file"), textOf("in/new")], ["as it was", "new"], context);
    };
    const undo = (context: string): void => {
      cairn(["undo"], here);
      assert.deepEqual(fs.readdirSync(folder).toSorted(), ["file", "more"], context);
      assert.deepEqual([textOf("file"), textOf("more")], ["changed", "more"], context);
    };

    assert.deepEqual(notMade(cairn(args, here)).toSorted(), REFUSED);
    assertRestored("restored");
    undo("undone");
    for (const failpoint of ["restore.committed", "restore.step", "restore.swapped", "restore.recorded"]) {
      assert.equal(cairn(args, { ...here, failpoint }).killed, true, failpoint);
      const { recovered } = cairnOk(["status"], here).data as unknown as StatusResult;
      assertRestored(failpoint);
      const kept = recovered.at(-1)!.kept.map((each) => Buffer.from(each.path_b64 ?? "", "base64").toString("latin1"));
      assert.deepEqual(kept.toSorted(), ["dir-\xff", "in/name-\xff"], failpoint);
      undo(failpoint);
    }
  },
);

test(
  "backup restore --in-place on exFAT keeps one of the directories whose names differ only in case",
  { skip: process.getuid?.() !== 0 && "this is not root" },
  async (t) => {
    const root = exfat(t);
    if (root === null) return;
    const source = newFolder("source");
    for (const name of ["name/x", "NAME/y", "NAME/in/z", "both/1", "Both/2"]) {
      fs.mkdirSync(path.dirname(path.join(source, name)), { recursive: true });
      fs.writeFileSync(path.join(source, name), name);
    }
    const place = await newRepository();
    const made = cairnOk(["backup", "create", source, ...place.options]).data["snapshot"];
    const folder = path.join(root, "folder");
    fs.mkdirSync(path.join(folder, "name"), { recursive: true });
    fs.writeFileSync(path.join(folder, "name/x"), "changed");
    cairnOk(["init", folder, "--control-dir", path.join(newFolder("control"), "here")]);
    const here: RunOptions = { cwd: folder };
    const { snapshot_id: id } = made as { snapshot_id: string };
    const args = ["backup", "restore", id, "--in-place", ...place.options];
    const assertRestored = (context: string): void => {
      const there = fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).toSorted();
      assert.deepEqual(there, ["Both", "Both/2", "name", "name/x"], context);
      assert.equal(fs.readFileSync(path.join(folder, "name/x"), "utf8"), "name/x", context);
    };
    assert.deepEqual(notMade(cairn(args, here)).toSorted(), [
      ["NAME", "not_permitted"],
      ["both", "not_permitted"],
    ]);
    assertRestored("restored");
    cairnOk(["undo"], here);
    assert.deepEqual(fs.readdirSync(folder), ["name"]);
    assert.equal(cairn(args, { ...here, failpoint: "restore.swapped" }).killed, true);
    const { recovered } = cairnOk(["status"], here).data as unknown as StatusResult;
    assertRestored("recovered");
    assert.deepEqual(
      recovered
        .at(-1)!
        .kept.map((each) => each.path)
        .toSorted(),
      ["NAME", "both"],
    );
  },
);

test("restore leaves out a file above the file size limit and restores the rest", (t) => {
  if (spawnSync("prlimit", ["--version"]).error !== undefined) return t.skip("prlimit is not installed");
  const folder = newFolder("large");
  const large = Buffer.concat(Array<Buffer>(80).fill(randomBytes(1 << 20)));
  const at = (...names: string[]): string => path.join(folder, ...names);
  for (const name of ["large", "linked-1"]) fs.writeFileSync(at(name), large);
  fs.linkSync(at("linked-1"), at("linked-2"));
  fs.writeFileSync(at("small"), "as it was");
  cairnOk(["save", folder]);
  fs.rmSync(at("large"));
  for (const name of ["linked-1", "small"]) fs.writeFileSync(at(name), "changed");
  const limited: RunOptions = { cwd: folder, prefix: ["prlimit", `--fsize=${64 << 20}`, "--"] };
  const expected = ["large", "linked-1", "linked-2"].map((name) => [name, "not_permitted"]);
  const to = path.join(newFolder("in"), "to");
  assert.deepEqual(notMade(cairn(["restore", "latest", "--to", to], limited)).toSorted(), expected);
  assert.deepEqual(fs.readdirSync(to), ["small"]);
  assert.deepEqual(notMade(cairn(["restore", "latest"], limited)).toSorted(), expected);
  assert.deepEqual(fs.readdirSync(folder).toSorted(), ["linked-1", "linked-2", "small"]);
  assert.deepEqual(
    [fs.readFileSync(at("linked-1"), "utf8"), fs.readFileSync(at("small"), "utf8")],
    ["changed", "as it was"],
  );
  cairnOk(["restore", "latest"], { cwd: folder });
  assert.deepEqual(fs.readFileSync(at("large")), large);
});
