import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { backup, newRepository } from "../fixtures/repository.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";

test("a restore check, if killed, leaves a scratch folder that the next restore check removes", async () => {
  const folder = newFolder("checked");
  makeFirst(folder);
  const place = await newRepository("checked-by-restoring");
  backup(place, "create", "-C", folder);
  const scratch = newFolder("scratch");
  const args = ["backup", "verify", "--subset", "none", "--restore-check", "--scratch", scratch, ...place.options];
  for (const name of ["partial.made", "restore-check.restored"]) {
    assert.ok(cairn(args, { failpoint: name }).killed, name);
    assert.equal(fs.readdirSync(scratch).length, 1, path.join(scratch, "*"));
    cairnOk(args);
    assert.deepEqual(fs.readdirSync(scratch), [], name);
  }
});
