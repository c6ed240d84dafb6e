import assert from "node:assert/strict";
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { LIBRARY_VERBS } from "./verbs/index.ts";
import * as cairn from "./index.ts";

// Names that programs rely on: they may grow, none may go.
const EXPORTS =
  "CairnError ERROR_TABLE addToContext backupContext captureDatabase checkContext cloneMachine convertBundle createMachine detectEngine diffBundles exportBundle exportMachine extractBundle find findInContext forget hibernateMachine importBundle importDirectory importMsgvault init initContext initRepository inspect inspectBundle inspectMachine listContext listDatabases listMachines listMsgvault listWorkspaces open openOrInit openRepository readContext reindexContext relocate removeFromContext removeMachine restoreContext restoreDatabase restoreMachine saveMachine setMachine startMachine stopMachine validateEngine verifyBundle verifyReceipt";
const CLIENT = [
  "repoRoot repoId engineType controlDirectory workspace created engineReasons workspacePath",
  "save restore planRestore undo planUndo restoreLatest history latestSavePoint hasSavePoints resolve status diff show read",
  "verify verifyAll fork view listViews closeView pin unpin tag previewCleanup runCleanup run doctor store policy setPolicy shortIds createBackup release close",
]
  .join(" ")
  .split(" ");

test("the root export has exactly the promised names, and every verb of the library", () => {
  assert.deepEqual(
    Object.keys(LIBRARY_VERBS).filter((name) => !(name in cairn)),
    [],
  );
  assert.deepEqual(Object.keys(cairn).toSorted(), EXPORTS.split(" "));
});

test("a client has the promised names, and the library works without any set-up", async (t) => {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "cairn-index-")));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const path = join(root, "whole");
  await using client = await cairn.openOrInit(path, { selfContained: true, name: "whole" });
  assert.deepEqual(
    CLIENT.filter((name) => !(name in client)),
    [],
  );
  assert.deepEqual([client.repoRoot, client.controlDirectory, client.engineType], [path, join(path, ".cairn"), "copy"]);
  assert.match(client.repoId, /^[0-9a-f]{32}$/);
  assert.equal(client.workspacePath("main"), join(path, "main"));
  assert.throws(() => client.workspacePath("other"), { code: "not_found" });
  assert.equal((await client.restoreLatest()).restored_to, null);
  assert.deepEqual([await client.hasSavePoints(), await client.latestSavePoint()], [false, null]);
  writeFileSync(join(path, "main", "a"), "one");
  const { save_point_id: id, cause } = await client.save({ message: "first", tags: ["auto"] });
  assert.deepEqual(cause, { kind: "program" });
  assert.equal((await client.latestSavePoint())?.save_point_id, id);
  assert.equal(await cairn.find(join(path, "main")), join(path, "main"));
  assert.equal((await cairn.open(path)).repoId, client.repoId);
  await assert.rejects(cairn.open(root), { code: "not_a_workspace" });
  await assert.rejects(cairn.init(path, { selfContained: true }), { code: "already_exists" });
  await assert.rejects(cairn.validateEngine(root, "btrfs-snapshot"), { code: "unsupported" });
  await assert.rejects(cairn.detectEngine(join(root, "nowhere")), { code: "not_found", message: /there is no / });
  const { engine, engine_reasons } = await cairn.detectEngine(root);
  assert.deepEqual(
    [engine, engine_reasons.map((each) => each.engine)],
    ["copy", ["btrfs-snapshot", "juicefs-clone", "reflink-copy", "copy"]],
  );
});

test("detectEngine explains why a self-contained folder uses copy, and openOrInit refuses the system's root", async () => {
  const { engine, engine_reasons } = await cairn.detectEngine("/");
  assert.deepEqual([engine, engine_reasons.length], ["copy", 4]);
  assert.match(engine_reasons[0]!.reason, /^the save points lie inside the folder, at \//);
  await assert.rejects(cairn.openOrInit("/"), { code: "refused", message: /it is the root of the whole system$/ });
});

test("a hint of the library names calls of the library", async (t) => {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "cairn-index-")));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  writeFileSync(join(root, "a"), "one");
  await assert.rejects(cairn.openOrInit(root, { selfContained: true }), {
    code: "already_exists",
    hint: `to make this folder itself the workspace, run: \`openOrInit("${root}")\``,
  });
  await using client = await cairn.openOrInit(join(root, "whole"), { selfContained: true });
  await assert.rejects(client.save({ workspaceName: "other" }), { hint: "see `listWorkspaces()`" });
});
