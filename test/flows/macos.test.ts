import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { differencesOf, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";

// On a Mac itself none of this has been run. Here no call is native, since Linux's library is none of macOS's.
const env = {
  NODE_OPTIONS: `--import=${new URL("../fixtures/as-macos.ts", import.meta.url).href}`,
  CAIRN_NO_NATIVE: "1",
  CAIRN_PASSWORD: "password",
};

/** All but the times and attributes, which take native calls. */
function stateOf(folder: string): FolderState {
  return new Map(
    [...readFolder(folder)].map(([name, facts]) => [
      name,
      facts.replace(/mtime -?\d+/u, "").replace(/, xattrs .*/u, ""),
    ]),
  );
}

function assertSame(is: string, wanted: FolderState): void {
  assert.deepEqual(differencesOf(stateOf(is), wanted), []);
}

test("a folder is saved, given back, backed up and restored where the system says that it is macOS", () => {
  const base = newFolder("macos");
  const folder = path.join(base, "work");
  const at = (name: string): string => path.join(base, name);
  fs.mkdirSync(folder);
  const run = (...args: string[]): Outcome => cairnOk(args, { cwd: folder, env });
  // Times are not exact without native calls, and what could not be set is listed.
  const roughly = (...args: string[]): Outcome => {
    const done = cairn(args, { cwd: folder, env });
    assert.ok(done.status === 0 || done.status === 10, done.stdout);
    const left = (done.data["left_out"] ?? []) as { aspects?: string[]; detail?: string }[];
    assert.deepEqual(
      left.filter((each) => !JSON.stringify(each).includes("times")),
      [],
    );
    return done;
  };
  makeFirst(folder);
  fs.writeFileSync(at("outside"), "not in the folder\n");
  fs.symlinkSync(at("outside"), path.join(folder, "goes/out"));
  const first = stateOf(folder);
  const saved = run("save", "-m", "first").data["save_point"] as {
    save_point_id: string;
    degraded: { what: string }[];
  };
  assert.deepEqual(
    saved.degraded.map(({ what }) => what),
    ["extended attributes, access lists and holes"],
  );
  makeSecond(folder);
  fs.symlinkSync(at("outside"), path.join(folder, "same/out"));
  const second = stateOf(folder);
  assert.equal(run("status").data["clean"], false);
  roughly("restore", saved.save_point_id);
  assertSame(folder, first);
  roughly("undo");
  assertSame(folder, second);
  assert.equal(fs.statSync(at("outside")).nlink, 1);
  const view = run("view", saved.save_point_id).data["view"] as { view_id: string; path: string };
  assert.equal(fs.readFileSync(path.join(view.path, "same/updated.txt"), "utf8"), "first\n");
  run("view", "--close", view.view_id);
  assert.deepEqual(run("verify", "--all").data["problems"], []);
  assert.equal(run("doctor").data["healthy"], true);
  roughly("fork", saved.save_point_id, at("fork"));
  assertSame(at("fork"), first);
  run("backup", "init", "-r", at("repository"));
  run("backup", "create", "-r", at("repository"), "--save");
  roughly("backup", "restore", "latest", "-r", at("repository"), "--to", at("back"));
  assertSame(at("back"), second);
  // Elsewhere links have another mode.
  fs.rmSync(at("back"), { recursive: true });
  cairnOk(["backup", "restore", "latest", "-r", at("repository"), "--to", at("back")], {
    env: { CAIRN_PASSWORD: "password" },
  });
  assertSame(at("back"), second);
});
