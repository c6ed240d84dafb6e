import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";

test("status warns of a missing pack, a damaged record and a failed verification until they are repaired", () => {
  const folder = path.join(SCRATCH, "work");
  fs.mkdirSync(folder);
  const save = (): string => {
    fs.writeFileSync(path.join(folder, "file"), `${Math.random()}`);
    return (cairnOk(["save", folder]).data["save_point"] as { save_point_id: string }).save_point_id;
  };
  const [first] = [save(), save()];
  const warned = (): string => cairnOk(["status", folder]).warnings.join("\n");
  assert.equal(warned(), "");
  const { repository } = cairnOk(["-C", folder, "store"]).data as { repository: string };
  const [pack] = fs.globSync("data/*/*", { cwd: repository }).map((name) => path.join(repository, name)) as [string];
  const aside = path.join(SCRATCH, "aside");
  fs.renameSync(pack, aside);
  assert.match(warned(), /1 pack of the store is missing or damaged: .*cairn doctor --repair/);
  assert.equal(cairn(["-C", folder, "verify", "--all"]).status, 6);
  assert.match(warned(), /the last verification found damage in \d+ save points?/);
  fs.renameSync(aside, pack);
  cairnOk(["-C", folder, "verify", "--all"]);
  assert.equal(warned(), "");
  const descriptors = fs.globSync("workspaces/*/points/*/descriptor.json", { cwd: path.dirname(repository) });
  const file = descriptors
    .map((name) => path.join(path.dirname(repository), name))
    .find((each) => (JSON.parse(fs.readFileSync(each, "utf8")) as { save_point_id: string }).save_point_id === first)!;
  fs.writeFileSync(file, "{}");
  assert.match(warned(), /1 save point cannot be read/);
});
