import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk } from "../fixtures/command.ts";
import { newRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

test("verify finds no problem after a part of a snapshot with a hard link was restored in place", async () => {
  const folder = newFolder("linked");
  const at = (name: string): string => path.join(folder, name);
  fs.mkdirSync(at("d"));
  fs.writeFileSync(at("a"), "linked");
  fs.linkSync(at("a"), at("d/b"));
  const place = await newRepository();
  cairnOk(["backup", "create", "-C", folder, ...place.options]);
  cairnOk(["release", folder, "--delete-points"]);
  cairnOk(["save", folder]);
  for (const name of ["a", "d/b"]) fs.rmSync(at(name));
  cairnOk(["backup", "restore", "latest", "d", "--in-place", "-C", folder, ...place.options]);
  assert.deepEqual(cairnOk(["verify", "--all", "-C", folder]).data["problems"], []);
});
