import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";

test("a refused backup restore --in-place makes no folder a workspace", () => {
  const [one, other, target] = ["one", "other", "target"].map((name) => {
    const folder = path.join(SCRATCH, name);
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, "file"), name);
    return folder;
  }) as [string, string, string];
  const to = ["-r", path.join(SCRATCH, "repository"), "--password-command", "echo secret"];
  cairnOk(["backup", "init", ...to]);
  cairnOk(["backup", "create", one, other, ...to]);
  const states = (): string[] => fs.readdirSync(process.env["XDG_STATE_HOME"]!, { recursive: true }).map(String);
  const before = states().filter((name) => /control\/[0-9a-f]{32}$/.test(name));
  const { status, error } = cairn(["-C", target, "backup", "restore", "latest", "--path", one, "--in-place", ...to]);
  assert.notEqual(status, 0);
  assert.match(error!.message, /does not hold exactly one folder|another program/);
  assert.equal(cairn(["-C", target, "history"]).error!.code, "not_a_workspace");
  assert.deepEqual(
    states().filter((name) => /control\/[0-9a-f]{32}$/.test(name)),
    before,
  );
});

test("a restore that changed nothing is no operation: undo reverts the restore before it", () => {
  const folder = path.join(SCRATCH, "undone");
  fs.mkdirSync(folder);
  const file = path.join(folder, "file");
  const save = (content: string): string => {
    fs.writeFileSync(file, content);
    return (cairnOk(["save", folder]).data["save_point"] as { save_point_id: string }).save_point_id;
  };
  const first = save("1");
  save("2");
  const undo = cairnOk(["-C", folder, "restore", first]).data["undo_id"] as string;
  assert.equal(cairnOk(["-C", folder, "restore", first]).data["undo_id"], null);
  const plan = cairnOk(["-C", folder, "undo", "--plan"]).data["plan"] as { entries: unknown[] };
  assert.equal(plan.entries.length, 1);
  const { operations } = cairnOk(["-C", folder, "operations"]).data as unknown as { operations: object[] };
  assert.equal(operations.length, 1);
  assert.equal(cairnOk(["-C", folder, "undo"]).data["restored_to"], undo);
  assert.equal(fs.readFileSync(file, "utf8"), "2");
});
