import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";
import { killAt, passesOf, SEED, someOf } from "./rounds.ts";

let failed = true;
after(() => {
  if (failed) process.stderr.write(`hooks.test.ts: repeat with CAIRN_TEST_SEED=${SEED}\n`);
});

const names = (folder: string): string[] => fs.readdirSync(folder).toSorted();

/** Kills a save at each of its failpoints around the dumps; the next command leaves the folder as it was. */
function killEverywhere(folder: string, before: readonly string[]): void {
  const args = ["save", folder];
  const passes = passesOf(args);
  const own = passes.flatMap((name, i) => (/^(?:dumps|save|points?)\./.test(name) ? [i + 1] : []));
  assert.ok(own.length >= 8, passes.join(" "));
  for (const pass of someOf(own)) {
    fs.writeFileSync(path.join(folder, "letter"), `version ${pass}`);
    const where = killAt(args, pass);
    assert.notEqual(where, null);
    // An agent's save takes no dump, and finishes what was killed.
    cairnOk(["save", folder, "--cause", '{"kind":"tool_call"}']);
    assert.deepEqual(names(folder), before, `killed at ${where}`);
    if (before.includes(".cairn-dumps"))
      assert.equal(fs.readFileSync(path.join(folder, ".cairn-dumps/mine"), "utf8"), "mine", where!);
    const [latest] = cairnOk(["-C", folder, "history"]).data["save_points"] as { save_point_id: string }[];
    const listed = cairn(["-C", folder, "show", `${latest!.save_point_id}:.cairn-dumps`]);
    const has = listed.status === 0 && listed.stdout.includes('/mine"');
    assert.equal(has, before.includes(".cairn-dumps"), `killed at ${where}: ${listed.stdout}`);
    assert.equal(cairnOk(["-C", folder, "doctor"]).data["healthy"], true, where!);
  }
}

test("a save that is killed leaves no dumps in the folder, and the next save is whole", () => {
  const folder = newFolder("killed");
  cairnOk(["save", folder]);
  cairnOk(["hooks", folder, "--before-save", 'date +%N > "$CAIRN_DUMPS/now"']);
  killEverywhere(folder, ["letter"]);
});

test("a save that is killed gives a directory .cairn-dumps of the folder its name back", () => {
  const folder = newFolder("killed-aside");
  fs.mkdirSync(path.join(folder, ".cairn-dumps"));
  fs.writeFileSync(path.join(folder, ".cairn-dumps/mine"), "mine");
  cairnOk(["save", folder]);
  cairnOk(["hooks", folder, "--before-save", 'date +%N > "$CAIRN_DUMPS/now"']);
  killEverywhere(folder, [".cairn-dumps", "letter"]);
  failed = false;
});

test("a folder that is lost after its save was killed with dumps in it can be restored", () => {
  const folder = newFolder("killed-lost");
  fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
  cairnOk(["save", folder]);
  cairnOk(["hooks", folder, "--before-save", 'date +%N > "$CAIRN_DUMPS/now"']);
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
    "--before-save",
    'echo part > "$CAIRN_DUMPS/a"; kill -KILL $PPID; echo rest >> "$CAIRN_DUMPS/a"',
  ]);
  assert.equal(cairn(["save", folder], { own: true }).killed, true);
  assert.equal(names(folder).length, 2);
  cairnOk(["save", folder, "--no-hooks"]);
  assert.deepEqual(names(folder), ["letter"]);
  assert.equal(cairn(["-C", folder, "show", "latest:.cairn-dumps"]).status, 3);
});
