import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { noRestic, resticRepository, restic } from "../fixtures/repository.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

test(
  "restore --in-place refuses a snapshot that restic made, and its hint to use --to works",
  { skip: noRestic },
  async () => {
    const folder = newFolder("restic-in-place");
    makeFirst(folder);
    const place = resticRepository(2);
    restic(place, "backup", folder);
    makeSecond(folder);
    cairnOk(["save", folder]);
    const before = readFolder(folder);
    for (const more of [[], ["--plan"], ["same"]]) {
      const args = ["-C", folder, "backup", "restore", "latest", ...more, "--in-place", ...place.options];
      const refused = cairn(args);
      assert.match(`${refused.status} ${refused.stdout}`, /^7 .*made by another program.*--to/);
    }
    assertFolder(folder, before, "refused");
    assert.equal((await (await clientOf(folder)).history(undefined, 0, { all: true })).save_points.length, 1);
    const target = newFolder("to");
    cairnOk(["backup", "restore", `latest:${folder}`, "--to", target, ...place.options]);
    assert.equal(fs.readFileSync(path.join(target, "same/updated.txt"), "utf8"), "first\n");
  },
);
