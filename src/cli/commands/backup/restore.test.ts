import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../../../errors.ts";
import { argsOf, failing, fakeLibrary } from "../../testing-fake-library.ts";
import { runFake, runJson } from "../../testing-run.ts";

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

test("backup restore names the files that never left, and says what if-changed compared", async () => {
  const overwritten = { written: 2, left: 12, left_first: [{ path: "a.txt" }, { path: "b.txt" }], unchanged: 0 };
  const told = async (more: object): Promise<string> => {
    const result = {
      snapshot_id: "1a2b3c4d",
      created_at: "2026-11-27T00:00:00Z",
      hostname: "h",
      target: "/t",
      dry_run: false,
      entries: 2,
      bytes: 4,
      kept_bytes: 0,
      duration_ms: 1,
      owners: "numbers",
      unknown_owners: [],
      left_out: [],
      plan_id: null,
      planned_entries: null,
      proof: null,
      read_from: null,
      untold_files: null,
      ...more,
    };
    const fake = fakeLibrary({ restore: () => result });
    return (await runFake(["backup", "restore", "latest", "-r", "x", "--to", "/t"], { fake })).stdout;
  };
  assert.match(await told({ overwritten }), /2 written, 12 left; .*\n  left: a.txt\n  left: b.txt\n  left: 10 more\n/);
  const same = { written: 1, left: 0, left_first: [], unchanged: 3 };
  assert.match(await told({ overwritten: same }), /3 with the same size and times \(content not read\);/);
  const read = await told({ overwritten: same, read_from: "disk", untold_files: 0 });
  assert.match(read, /3 with the same size and times;/);
});
