import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";
import { killAt, passesOf, someOf } from "./rounds.ts";

const names = (folder: string): string[] => fs.readdirSync(folder).toSorted();

test("a save that is killed leaves no dumps in the folder, and the next save with hooks is whole", () => {
  const folder = newFolder("killed");
  cairnOk(["save", folder]);
  cairnOk(["hooks", folder, "--set", 'before-save=date +%N > "$CAIRN_DUMPS/now"']);
  const args = ["save", folder];
  const own = passesOf(args).flatMap((name, i) => (/^(?:dumps|save|points?)\./.test(name) ? [i + 1] : []));
  assert.ok(own.length >= 6, `${own.length} failpoints`);
  for (const pass of someOf(own))
    for (const hooks of [false, true]) {
      fs.writeFileSync(path.join(folder, "letter"), `version ${pass}`);
      const where = killAt(args, pass);
      assert.notEqual(where, null);
      // An agent's save takes no dump, and finishes what was killed. So does a save whose dumps need the name.
      cairnOk(["save", folder, ...(hooks ? [] : ["--cause", '{"kind":"tool_call"}'])]);
      assert.deepEqual(names(folder), ["letter"], `killed at ${where}`);
      assert.equal(
        cairn(["-C", folder, "show", "latest:.cairn-dumps/now"]).status,
        hooks ? 0 : 3,
        `killed at ${where}`,
      );
      assert.equal(cairnOk(["-C", folder, "doctor"]).data["healthy"], true, where!);
    }
});

test("a folder that is lost after its save was killed with dumps in it can be restored", () => {
  const folder = newFolder("killed-lost");
  fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
  cairnOk(["save", folder]);
  cairnOk(["hooks", folder, "--set", 'before-save=date +%N > "$CAIRN_DUMPS/now"']);
  assert.equal(cairn(["save", folder], { failpoint: "dumps.named" }).killed, true);
  fs.rmSync(folder, { recursive: true });
  cairnOk(["-C", folder, "restore", "latest"]);
  assert.deepEqual(names(folder), ["letter"]);
});

test("a command whose save is killed while it runs leaves nothing that a save reads", async () => {
  const folder = newFolder("killed-before");
  fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
  cairnOk(["save", folder]);
  cairnOk([
    "hooks",
    folder,
    "--set",
    'before-save=echo part > "$CAIRN_DUMPS/a"; kill -KILL $PPID; echo rest >> "$CAIRN_DUMPS/a"',
  ]);
  assert.equal(cairn(["save", folder], { own: true }).killed, true);
  assert.equal(names(folder).length, 2);
  cairnOk(["save", folder, "--no-hooks"]);
  assert.deepEqual(names(folder), ["letter"]);
  assert.equal(cairn(["-C", folder, "show", "latest:.cairn-dumps"]).status, 3);
});
