import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { cairn, cairnOk, type Outcome, ROOT, SCRATCH } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { newFolder, savedFolder } from "../fixtures/work.ts";

/** What meets a restore on its way, or comes between it and its recovery, never keeps the workspace from being used. */

describe("a killed restore", () => {
  test("the next save finishes a killed restore, without files that were removed since", async () => {
    const { folder, first, at } = await savedFolder({ a: "a\n", b: "b\n", c: "c\n" });
    for (const name of ["a", "b", "c"]) fs.rmSync(at(name));
    assert.ok(cairn(["restore", first, "-C", folder], { failpoint: "restore.step:2" }).killed);
    fs.rmSync(at("a"));
    cairnOk(["save", "-C", folder]);
    assert.deepEqual(fs.readdirSync(folder), ["b", "c"], "what was removed since stays away, the rest is finished");
  });

  test("the next save finishes a killed restore without touching a file that was edited since", async () => {
    const { folder, client, first, at } = await savedFolder({ a: "before\n", b: "before\n" });
    const { mode } = fs.statSync(at("b"));
    for (const name of ["a", "b"]) fs.chmodSync(at(name), 0o611);
    await client.save();
    assert.ok(cairn(["restore", first, "-C", folder], { failpoint: "restore.step:1" }).killed);
    fs.writeFileSync(at("a"), "edited\n");
    const { mtimeNs } = fs.statSync(at("a"), { bigint: true });
    cairnOk(["save", "-C", folder]);
    assert.equal(fs.statSync(at("a"), { bigint: true }).mtimeNs, mtimeNs);
    assert.equal(fs.statSync(at("b")).mode, mode);
  });

  test("a killed restore is finished after the folder and its control directory were moved together", async () => {
    const whole = path.join(SCRATCH, "self-contained");
    cairnOk(["init", whole, "--self-contained"]);
    const folder = path.join(whole, "main");
    for (const name of ["a", "b", "c"]) fs.writeFileSync(path.join(folder, name), "first\n");
    cairnOk(["save", "-C", folder]);
    const first = readFolder(folder);
    for (const name of ["a", "b", "c"]) fs.writeFileSync(path.join(folder, name), "second\n");
    cairnOk(["save", "-C", folder]);
    assert.ok(cairn(["restore", "head~1", "-C", folder], { failpoint: "restore.step:2" }).killed);
    fs.renameSync(whole, `${whole}-moved`);
    cairnOk(["save", "--skip-unchanged", "-C", path.join(`${whole}-moved`, "main")]);
    assertFolder(path.join(`${whole}-moved`, "main"), first, "finished where it is now");
    assert.deepEqual(fs.readdirSync(path.join(`${whole}-moved`, ".cairn/tmp")), []);
  });
});

const DROPPED = [
  "setpriv",
  "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown",
  "--inh-caps=-dac_override,-dac_read_search,-fowner,-chown",
  "--",
];
const canDrop = process.geteuid?.() === 0 && spawnSync("setpriv", ["--version"]).error === undefined;

test(
  "the command that finishes a killed restore lists the entries left out",
  { skip: !canDrop && "needs root and setpriv" },
  () => {
    const folder = newFolder();
    const at = (name: string): string => path.join(folder, name);
    for (const name of ["plain", "owned", "kept", "lacking"]) fs.writeFileSync(at(name), `${name}\n`, { mode: 0o600 });
    for (const name of ["kept", "lacking"]) fs.chmodSync(at(name), 0);
    fs.chownSync(at("owned"), 4711, 4712);
    const dropped = (args: string[], failpoint?: string): Outcome =>
      cairn([...args, "-C", folder], { prefix: DROPPED, ...(failpoint === undefined ? {} : { failpoint }) });
    fs.chmodSync(at("owned"), 0o644);
    const first = (dropped(["save"]).data["save_point"] as { save_point_id: string }).save_point_id;
    fs.rmSync(at("owned"));
    fs.rmSync(at("lacking"));
    fs.chmodSync(at("kept"), 0o600);
    fs.writeFileSync(at("plain"), "changed\n");
    const said = (list: unknown): unknown[] =>
      (list as { path: string }[]).toSorted((a, b) => (a.path < b.path ? -1 : 1));
    const whole = dropped(["restore", first]);
    const wanted = said(whole.data["left_out"]);
    assert.deepEqual(
      (wanted as { path: string; reason: string }[]).map(({ path: name, reason }) => [name, reason]),
      [
        ["kept", "unreadable"],
        ["lacking", "unreadable"],
        ["owned", "not_permitted"],
      ],
      whole.stdout,
    );
    for (const failpoint of [
      "restore.committed",
      "restore.step:1",
      "restore.swapped",
      "restore.recorded",
      "restore.staging-removed",
    ]) {
      assert.equal(dropped(["undo"]).status, 0);
      assert.ok(dropped(["restore", first], failpoint).killed, failpoint);
      const { recovered } = dropped(["status"]).data as {
        recovered: { incomplete?: { count: number; left_out: unknown } }[];
      };
      const { incomplete } = recovered.at(-1)!;
      assert.deepEqual([incomplete?.count, said(incomplete?.left_out)], [3, wanted], failpoint);
    }
    const shown = spawnSync(process.execPath, [path.join(ROOT, "dist/cli.js"), "status", folder], { encoding: "utf8" });
    assert.match(shown.stdout, /recovered .*\n  left out: 3 entries\n/, shown.stdout);
  },
);
