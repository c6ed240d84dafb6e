import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { cairnLibrary, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, passesOf } from "./rounds.ts";

test("init --self-contained, if killed at any step, can be repeated, and leaves no other files", async () => {
  const names = passesOf(["init", "--self-contained", path.join(SCRATCH, "listed")]);
  assert.ok(names.length >= 5, names.join(" "));
  const library = await cairnLibrary();
  for (const pass of chosenPasses(names)) {
    const place = path.join(SCRATCH, `place-${pass}`);
    const name = killAt(["init", "--self-contained", place], pass);
    // Where it was whole already, a second one is told so.
    if (pass % 2 === 0) cairn(["init", "--self-contained", place], { failpoint: `#${pass}` });
    const client = await library.openOrInit(place, { selfContained: true });
    // A writer on another host cannot be asked whether it lives: what it left goes after an hour.
    for (const left of fs.readdirSync(place).filter((each) => each.startsWith(".cairn-tmp-")))
      fs.utimesSync(path.join(place, left), 1e9, 1e9);
    fs.writeFileSync(path.join(place, "main/f"), "x");
    const { save_point_id: id } = await client.save();
    assert.deepEqual(fs.readdirSync(place).toSorted(), [".cairn", "main"], `${name}`);
    assert.equal((await client.history()).save_points[0]!.save_point_id, id);
    assert.deepEqual((await (await library.open(place)).verifyAll()).problems, []);
    if (pass % 3 === 0) resticCheck(client, `${name}`);
    cairnOk(["save", path.join(place, "main")]);
  }
});
