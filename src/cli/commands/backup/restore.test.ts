import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../../../errors.ts";
import { argsOf, failing, fakeLibrary } from "../../testing-fake-library.ts";
import { runJson } from "../../testing-run.ts";

const LINE = ["backup", "restore", "latest", "--in-place", "-r", "x", "-C"];
const NO_WORKSPACE = new CairnError("not_a_workspace", "it is not a workspace", { hint: "save it once" });

function neverSaved(t: TestContext): string {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "cairn-restore-")));
  t.after(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, "folder"));
  symlinkSync("folder", join(root, "link"));
  return root;
}

test("backup restore --in-place makes a folder a workspace only if the snapshot exists", async (t) => {
  const root = neverSaved(t);
  const none = new CairnError("not_found", "no snapshot of it");
  const fake = fakeLibrary({ open: failing(NO_WORKSPACE), list: failing(none) });
  const { status, envelope } = await runJson([...LINE, join(root, "link")], { fake });
  assert.deepEqual([status, envelope.error?.message], [3, "no snapshot of it"]);
  const { paths, snapshots } = argsOf(fake, "list")[0] as Record<string, unknown>;
  assert.deepEqual([paths, snapshots], [[join(root, "folder")], ["latest"]]);
  assert.throws(() => argsOf(fake, "openOrInit"));
  const there = fakeLibrary({ open: failing(NO_WORKSPACE) });
  assert.equal((await runJson([...LINE, root], { fake: there })).status, 0);
  assert.equal(argsOf(there, "openOrInit")[0], root);
});

test("a plan of backup restore --in-place makes no folder a workspace, and its hint says so", async (t) => {
  const root = neverSaved(t);
  const fake = fakeLibrary({ open: failing(NO_WORKSPACE) });
  const { status, envelope } = await runJson([...LINE, root, "--plan"], { fake });
  assert.deepEqual([status, envelope.error?.code], [3, "not_a_workspace"]);
  assert.match(envelope.error?.hint ?? "", /makes no folder a workspace; without --plan .* saved first/);
  assert.throws(() => argsOf(fake, "openOrInit"));
});

test("backup restore --in-place names the command that overrides a guard", async (t) => {
  const root = neverSaved(t);
  const home = new CairnError("refused", "it is a home directory", { hint: "choose", details: { guard: "home" } });
  const fake = fakeLibrary({ open: failing(NO_WORKSPACE), openOrInit: failing(home) });
  const { status, envelope } = await runJson([...LINE, join(root, "folder")], { fake });
  assert.equal(status, 7);
  assert.match(envelope.error!.hint!, new RegExp(`^if this is intended: cairn init ${root}/folder --allow home, then`));
});

test("backup restore takes the text after a snapshot's first colon as the subfolder", async () => {
  const cases: [string, string, string | undefined][] = [
    ["latest:src", "latest", "src"],
    ["1a2b:./src/a:b/", "1a2b", "src/a:b"],
    ["1a2b:/home/u/src", "1a2b", "/home/u/src"],
    ["latest:", "latest", undefined],
    ["latest:.", "latest", undefined],
    ["latest", "latest", undefined],
  ];
  for (const [word, snapshot, subfolder] of cases) {
    const { status, fake } = await runJson(["backup", "restore", word, "inner", "-r", "x", "--to", "y"]);
    const [named, , options] = argsOf(fake, "restore") as [string, string, Record<string, unknown>];
    assert.deepEqual([status, named, options["subfolder"], options["paths"]], [0, snapshot, subfolder, ["inner"]]);
  }
  const { fake } = await runJson(["backup", "restore", "latest:src", "-r", "x", "--in-place"]);
  const [, named, options] = argsOf(fake, "restoreBackup") as [unknown, string, Record<string, unknown>];
  assert.deepEqual([named, options["subfolder"]], ["latest", "src"]);
  const both = await runJson(["backup", "diff", "1a2b:src", "latest:sources", "-r", "x"]);
  const folders = { fromSubfolder: "src", toSubfolder: "sources" };
  const [from, to, more] = argsOf(both.fake, "diff") as [string, string, Record<string, unknown>];
  assert.deepEqual([from, to, { ...folders, ...more }], ["1a2b", "latest", more]);
});
