import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";

test("backup create --plan makes no point, makes no folder a workspace and names the unsaved changes", () => {
  const [folder, fresh] = [path.join(SCRATCH, "work"), path.join(SCRATCH, "fresh")];
  for (const each of [folder, fresh]) fs.mkdirSync(each);
  const to = ["-r", path.join(SCRATCH, "repository"), "--password-command", "echo secret"];
  cairnOk(["backup", "init", ...to]);
  fs.writeFileSync(path.join(folder, "file"), "1");
  cairnOk(["save", folder]);
  fs.writeFileSync(path.join(folder, "file"), "22");
  fs.writeFileSync(path.join(folder, "new"), "1");
  const points = (): number => (cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[]).length;
  const dry = cairnOk(["backup", "create", folder, "--plan", ...to]);
  assert.equal(dry.data["dry_run"], true);
  assert.match(dry.warnings.join(), /not part of this dry run, which saves nothing: 1 added, 1 modified/);
  assert.equal(points(), 1);
  assert.deepEqual(cairnOk(["backup", "list", ...to]).data["snapshots"], []);
  assert.equal(cairn(["backup", "create", fresh, "--plan", ...to]).error!.code, "not_a_workspace");
  assert.equal(cairn(["-C", fresh, "history"]).error!.code, "not_a_workspace");
});
