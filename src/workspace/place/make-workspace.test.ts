import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import {
  type MadeWorkspace,
  makeWorkspace,
  chooseControlDirectory,
  controlWarnings,
  initSelfContained,
  plainName,
} from "./make-workspace.ts";
import { createWorkspace, listWorkspaces, readState, writeState, writeWorkspace } from "./control-directory.ts";
import { checkWorkspaceName, controlPaths, workspaceDirectoryName, workspaceNameOf } from "./control-layout.ts";
import {
  findWorkspace,
  isOtherFolder,
  movedHere,
  noteFolder,
  openControlDirectory,
  workspaceNamed,
} from "./find-workspace.ts";
import { realFolder } from "./guards.ts";
import { type FolderNote, listRegistered, noteAt, removeNote, unregister } from "./registry.ts";
import { encodeRegistration } from "../../formats/records/registration.ts";
import { attributeOf, FOLDER_NOTE, setAttributeOf } from "../../fs/linux/own-attributes.ts";
import { newControlId } from "../../ids.ts";

function scratch(context: TestContext): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "cairn-make-workspace-")));
  process.env["XDG_STATE_HOME"] = join(directory, "state");
  mkdirSync(join(directory, "ws", "sub"), { recursive: true });
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const OPTIONS = { engine: "copy", populate: async () => undefined };

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code;
}

async function make(folder: string, more: object = {}): Promise<MadeWorkspace> {
  return makeWorkspace(folder, { ...OPTIONS, ...more });
}

test("findWorkspace finds a workspace by its path, by paths below it and through a symbolic link", async (context) => {
  const directory = scratch(context);
  const { found, created } = await make(join(directory, "ws"));
  assert.equal(created, true);
  assert.ok(found.control.root.startsWith(join(directory, "state", "cairn", "control")));
  assert.equal(statSync(found.control.root).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(join(directory, "ws")), ["sub"]);
  symlinkSync("ws", join(directory, "link"));
  for (const path of ["ws", "ws/sub", "link", "link/sub", "ws/sub/not/there"]) {
    assert.equal(findWorkspace(join(directory, path))?.workspace.id, found.workspace.id, path);
  }
  assert.equal(findWorkspace(join(directory, "ws", "sub"), { exact: true }), null);
  assert.equal(findWorkspace(directory), null);
  assert.equal(findWorkspace(found.control.root, { exact: true })?.workspace.id, found.workspace.id);
  assert.equal(found.workspace.name, "main");
  assert.equal(isOtherFolder(found), false);
});

test("a second call returns the workspace of the first", async (context) => {
  const directory = scratch(context);
  const first = await make(join(directory, "ws"));
  const second = await make(join(directory, "ws"), { controlDirectory: join(directory, "other") });
  assert.equal(second.created, false);
  assert.equal(second.found.controlFile.id, first.found.controlFile.id);
  assert.equal(existsSync(join(directory, "other")), false);
});

const MODULE = JSON.stringify(new URL("make-workspace.ts", import.meta.url).href);
const POPULATE =
  'engine: "copy", populate: async (staged) => { (await import("node:fs")).writeFileSync(staged.storePassword, "x"); }';

test("findWorkspace finds a self-contained workspace by its root, main folder and control directory, also after a move", async (context) => {
  const directory = scratch(context);
  const { found } = await initSelfContained(join(directory, "whole"), OPTIONS);
  assert.equal(found.control.root, join(directory, "whole", ".cairn"));
  assert.equal(existsSync(join(directory, "state")), false, "it needs no registry");
  renameSync(join(directory, "whole"), join(directory, "moved"));
  mkdirSync(join(directory, "moved", "main", "deep"));
  for (const path of ["moved", "moved/main", "moved/.cairn", "moved/main/deep"]) {
    const again = findWorkspace(join(directory, path));
    assert.equal(again?.workspace.id, found.workspace.id, path);
    assert.equal(again.folder.toString(), join(directory, "moved", "main"));
  }
  assert.equal(
    workspaceNamed(controlPaths(join(directory, "moved", ".cairn")), "main")?.folder.toString(),
    join(directory, "moved", "main"),
  );
});

test("init refuses a folder that is not empty", async (context) => {
  const directory = scratch(context);
  await assert.rejects(initSelfContained(directory, OPTIONS), hasCode("already_exists"));
  mkdirSync(join(directory, "disk", "lost+found"), { recursive: true });
  assert.equal((await initSelfContained(join(directory, "disk"), OPTIONS)).created, true);
  await assert.rejects(
    initSelfContained(join(directory, "fresh/with/parents"), {
      ...OPTIONS,
      populate: async () => {
        throw new Error("no");
      },
    }),
  );
  assert.equal(existsSync(join(directory, "fresh")), false, "a failure leaves nothing");
  const odd = join(directory, "$(id)");
  mkdirSync(join(odd, "inside"), { recursive: true });
  // The hint quotes the path for the shell.
  await assert.rejects(
    initSelfContained(odd, OPTIONS),
    (error) => error instanceof CairnError && error.hint?.endsWith(`cairn init '${odd}'`) === true,
  );
});

test("findWorkspace and makeWorkspace fail with not_found if the folder's control directory is missing", async (context) => {
  const directory = scratch(context);
  const { found } = await make(join(directory, "ws"));
  renameSync(found.control.root, join(directory, "away"));
  const isMissing = (error: unknown): boolean =>
    hasCode("not_found")(error) && String((error as CairnError).hint).includes("release");
  assert.throws(() => findWorkspace(join(directory, "ws", "sub")), isMissing);
  await assert.rejects(make(join(directory, "ws")), isMissing);
  assert.deepEqual(
    listRegistered().map((entry) => entry.missing),
    [["control"]],
  );
  assert.equal(unregister(join(directory, "ws")), true);
  assert.equal(findWorkspace(join(directory, "ws")), null);
});

test("findWorkspace and makeWorkspace fail with damaged if the workspace's record is damaged", async (context) => {
  const directory = scratch(context);
  const { found } = await make(join(directory, "ws"));
  writeFileSync(found.paths.file, "{");
  assert.throws(() => findWorkspace(join(directory, "ws")), hasCode("damaged"));
  await assert.rejects(make(join(directory, "ws")), hasCode("damaged"));
  const file = listRegistered()[0]!.file;
  writeFileSync(file, "?");
  assert.throws(
    () => findWorkspace(join(directory, "ws")),
    (error) => hasCode("damaged")(error) && String(error).includes(file),
  );
  assert.equal(listRegistered()[0]!.problem?.code, "damaged");
});

test("makeWorkspace warns of a control directory that lost its workspaces, and still makes another folder a workspace", async (context) => {
  const directory = scratch(context);
  const { found } = await make(join(directory, "ws"));
  unregister(join(directory, "ws"));
  rmSync(found.control.workspaces, { recursive: true });
  mkdirSync(join(directory, "other"));
  const { created, warnings } = await make(join(directory, "other"));
  assert.equal(created, true);
  assert.ok(
    warnings.some((warning) => warning.includes(`${found.control.workspaces} is missing`)),
    warnings.join(),
  );
  assert.throws(() => listWorkspaces(found.control), hasCode("damaged"));
});

test("a later makeWorkspace removes old temporary files that a killed one left in the registry", async (context) => {
  const directory = scratch(context);
  const registry = join(directory, "state", "cairn", "workspaces");
  mkdirSync(registry, { recursive: true });
  // No process has such a number.
  const [old, young] = ["a", "b"].map((name) => join(registry, `.cairn-tmp-4194305-${name}`)) as [string, string];
  for (const each of [old, young]) writeFileSync(each, "half");
  const hoursAgo = Date.now() / 1000 - 7200;
  utimesSync(old, hoursAgo, hoursAgo);
  await make(join(directory, "ws"));
  assert.deepEqual([existsSync(old), existsSync(young)], [false, true]);
});

test("a cairn.json alone does not make a folder a control directory", async (context) => {
  const directory = scratch(context);
  writeFileSync(join(directory, "ws", "cairn.json"), "not ours");
  assert.equal(findWorkspace(join(directory, "ws")), null);
  assert.equal((await make(join(directory, "ws"))).created, true);
});

test(
  "findWorkspace ignores another user's control directory beside a folder, unless the folder is theirs too",
  { skip: process.geteuid?.() === 0 ? false : "needs root to give something away" },
  async (context) => {
    const directory = scratch(context);
    const [folder, beside] = [join(directory, "ws"), join(directory, ".cairn")];
    const { found } = await make(folder, { controlDirectory: beside });
    unregister(folder);
    assert.equal(findWorkspace(folder)?.recordedControl, beside);
    const nobody = 65534;
    chownSync(beside, nobody, nobody);
    assert.equal(findWorkspace(folder), null);
    assert.notEqual((await make(folder)).found.control.root, beside);
    unregister(folder);
    for (const owned of [folder, directory]) {
      chownSync(owned, nobody, nobody);
      assert.equal(findWorkspace(folder)?.control.root, found.control.root, `theirs is ${owned}`);
      chownSync(owned, 0, 0);
    }
  },
);

test(
  "chooseControlDirectory avoids a path that another user may rename, and controlWarnings names such a path",
  { skip: process.geteuid?.() === 0 ? false : "needs root to give something away" },
  (context) => {
    const directory = scratch(context);
    const [folder, state] = [join(directory, "ws"), join(directory, "state")];
    mkdirSync(state);
    const where = (): string => chooseControlDirectory(folder, { id: newControlId() }).where;
    const open = (mode: number): void => chmodSync(state, mode);
    assert.equal(where(), "user-state");
    open(0o777);
    assert.notEqual(where(), "user-state");
    assert.match(controlWarnings(join(state, "x"), folder).at(-1) ?? "", /every user may rename entries of .*state$/);
    open(0o1777);
    assert.equal(where(), "user-state", "the sticky bit");
    mkdirSync(join(state, "cairn"));
    chownSync(join(state, "cairn"), 65534, 65534);
    assert.notEqual(where(), "user-state", "the owner in a sticky folder");
    chownSync(folder, 65534, 65534);
    assert.equal(where(), "user-state", "who owns the folder may decide about it");
  },
);

test(
  "makeWorkspace fails with not_found if another user's control directory replaced that of the folder",
  { skip: process.geteuid?.() === 0 ? false : "needs root to give something away" },
  async (context) => {
    const directory = scratch(context);
    const [folder, other] = [join(directory, "ws"), join(directory, "other")];
    const root = join(directory, "control");
    mkdirSync(other);
    await make(folder, { controlDirectory: root });
    const theirs = await make(other, { controlDirectory: join(directory, "theirs") });
    renameSync(root, join(directory, "moved"));
    renameSync(theirs.found.control.root, root);
    for (const each of [root, join(root, "cairn.json")]) chownSync(each, 65534, 65534);
    await assert.rejects(make(folder), (error: CairnError) => {
      assert.equal(error.code, "not_found");
      assert.ok(error.message.includes(root) && error.hint?.includes("cairn release"), error.message);
      return true;
    });
  },
);

test("a dangling .cairn link beside a folder does not keep it from becoming a workspace", async (context) => {
  const directory = scratch(context);
  symlinkSync(".cairn", join(directory, ".cairn"));
  assert.equal(findWorkspace(join(directory, "ws")), null);
  const { found } = await make(join(directory, "ws"));
  assert.equal(findWorkspace(join(directory, "ws", "sub"))?.control.root, found.control.root);
});

test(
  "findWorkspace does not follow another user's .cairn link beside a folder",
  { skip: process.geteuid?.() === 0 ? false : "needs root to give something away" },
  async (context) => {
    const directory = scratch(context);
    const [folder, beside, other] = [join(directory, "ws"), join(directory, ".cairn"), join(directory, "other")];
    await make(folder, { controlDirectory: other });
    unregister(folder);
    removeNote(Buffer.from(folder));
    symlinkSync("other", beside);
    assert.equal(findWorkspace(folder)?.recordedControl, beside);
    lchownSync(beside, 65534, 65534);
    assert.equal(findWorkspace(folder), null);
  },
);

test(
  "findWorkspace ignores another user's .cairn in a folder, unless that user owns the folder too",
  { skip: process.geteuid?.() === 0 ? false : "needs root to give something away" },
  async (context) => {
    const around = join(scratch(context), "whole");
    const { found } = await initSelfContained(around, OPTIONS);
    chownSync(found.control.root, 65534, 65534);
    assert.equal(findWorkspace(around), null);
    chownSync(around, 65534, 65534);
    assert.equal(findWorkspace(around)?.control.root, found.control.root);
  },
);

test("isOtherFolder notices a new folder at the workspace's path, and findWorkspace ignores a released workspace", async (context) => {
  const directory = scratch(context);
  const { found } = await make(join(directory, "ws"));
  renameSync(join(directory, "ws"), join(directory, "old"));
  assert.equal(isOtherFolder(findWorkspace(join(directory, "ws"))!), false, "a deleted folder is still known");
  mkdirSync(join(directory, "ws"));
  assert.equal(isOtherFolder(findWorkspace(join(directory, "ws"))!), true);
  writeWorkspace(found.control, { ...found.workspace, settings: { released_at: new Date().toISOString() } });
  assert.equal(findWorkspace(join(directory, "ws")), null);
});

test("movedHere finds a folder that was made again after its registration and then moved, but no other folder", async (context) => {
  const directory = scratch(context);
  const [folder, moved] = [join(directory, "ws"), join(directory, "moved")];
  const { found } = await make(folder);
  if (found.workspace.root_made === undefined) return context.skip("no birth times here");
  rmSync(folder, { recursive: true });
  mkdirSync(join(directory, "takes the free inode"));
  mkdirSync(folder);
  renameSync(folder, moved);
  assert.equal(movedHere(Buffer.from(moved)), null, "nobody has gone on with it at the workspace's path");
  renameSync(moved, folder);
  noteFolder(found, {});
  renameSync(folder, moved);
  assert.deepEqual(movedHere(Buffer.from(moved)), { from: Buffer.from(folder), isReplaced: false });
  assert.equal(movedHere(Buffer.from(join(directory, "takes the free inode"))), null);
});

test("a folder that was moved and left a link behind counts as moved, at each path that leads to it", async (context) => {
  const directory = scratch(context);
  const [above, now] = [join(directory, "above"), join(directory, "now")];
  mkdirSync(join(above, "ws"), { recursive: true });
  await make(join(above, "ws"));
  renameSync(above, now);
  symlinkSync("now", above);
  const moved = { from: Buffer.from(join(above, "ws")), isReplaced: false };
  for (const path of [join(above, "ws"), join(now, "ws")]) {
    assert.equal(findWorkspace(path), null);
    assert.deepEqual(movedHere(realFolder(path)), moved);
  }
  rmSync(join(now, "ws"), { recursive: true });
  mkdirSync(join(directory, "copy"));
  symlinkSync(join(directory, "copy"), join(now, "ws"));
  assert.deepEqual(movedHere(realFolder(join(directory, "copy"))), moved, "a copy, for example on another disk");
});

test("createWorkspace gives each workspace of a control directory a unique name", async (context) => {
  const directory = scratch(context);
  const { found } = await make(join(directory, "ws"));
  mkdirSync(join(directory, "fork"));
  const first = createWorkspace(found.control, { folder: join(directory, "fork"), name: "fo/rk" });
  const second = createWorkspace(found.control, { folder: join(directory, "fork"), name: "fo/rk" });
  assert.deepEqual([first.workspace.name, second.workspace.name], ["fo/rk", "fo/rk-2"]);
  assert.throws(
    () => createWorkspace(found.control, { folder: directory, name: "main", exactName: true }),
    hasCode("already_exists"),
  );
  writeFileSync(second.paths.file, "{");
  assert.deepEqual(
    listWorkspaces(found.control).map((each) => [each.name, each.problem?.code]),
    [
      ["fo/rk", undefined],
      ["fo/rk-2", "damaged"],
      ["main", undefined],
    ],
  );
  writeState(first.paths, { ...readState(first.paths), head: "c".repeat(32) as never });
  assert.equal(readState(first.paths).head, "c".repeat(32));
  assert.deepEqual(readdirSync(found.control.temporary), []);
});

test("makeWorkspace uses a given control directory, also for a second folder, but refuses one inside the folder", async (context) => {
  const directory = scratch(context);
  const controlDirectory = join(directory, "given");
  const { found } = await make(join(directory, "ws"), { controlDirectory });
  assert.equal(found.control.root, controlDirectory);
  mkdirSync(join(directory, "two"));
  const second = await make(join(directory, "two"), { controlDirectory });
  assert.equal(second.found.controlFile.id, found.controlFile.id);
  assert.equal(openControlDirectory(controlDirectory, join(directory, "two")).workspace.name, "two");
  assert.equal(openControlDirectory(controlDirectory).workspace.name, "main");
  assert.throws(() => openControlDirectory(directory), hasCode("not_a_workspace"));
  mkdirSync(join(directory, "three"));
  await assert.rejects(
    make(join(directory, "three"), { controlDirectory: join(directory, "three", "x") }),
    hasCode("refused"),
  );
  await assert.rejects(make(join(directory, "three"), { controlDirectory: "x" }), hasCode("usage"));
  writeFileSync(join(directory, "file"), "");
  await assert.rejects(
    make(join(directory, "three"), { controlDirectory: join(directory, "file") }),
    hasCode("already_exists"),
  );
});

test("workspace names are encoded as directory names and decoded", () => {
  for (const name of ["main", "ä b", "..", ".hidden", "a.b", "a%41", "x".repeat(60)]) {
    const directory = workspaceDirectoryName(name);
    assert.match(directory, /^[A-Za-z0-9_%-][A-Za-z0-9._%-]*$/);
    assert.equal(workspaceNameOf(directory), name);
  }
  for (const name of ["", "x".repeat(61), "a\nb"]) assert.throws(() => checkWorkspaceName(name), hasCode("usage"));
  assert.equal(workspaceNameOf(".cairn-tmp-1-a"), null);
  assert.equal(plainName("my folder/ä!"), "my-folder");
  assert.equal(plainName("ä"), "workspace");
});

const unshare = spawnSync("unshare", ["-m", "true"]).status === 0;

test(
  "makeWorkspace puts the control directory at the root of a mount, and the folder is found after the mount moved",
  { skip: unshare ? false : "needs the right to mount" },
  (context) => {
    const directory = scratch(context);
    mkdirSync(join(directory, "disk"));
    mkdirSync(join(directory, "elsewhere"));
    const find = JSON.stringify(new URL("find-workspace.ts", import.meta.url).href);
    const script = `
    import { execFileSync } from "node:child_process";
    import { mkdirSync, rmSync } from "node:fs";
    const { makeWorkspace } = await import(${MODULE});
    const { findWorkspace } = await import(${find});
    const [disk, elsewhere, state] = process.argv.slice(1);
    execFileSync("mount", ["-t", "tmpfs", "none", disk]);
    mkdirSync(disk + "/ws");
    const { found, warnings } = await makeWorkspace(disk + "/ws", { ${POPULATE} });
    rmSync(state, { recursive: true });
    execFileSync("mount", ["--move", disk, elsewhere]);
    const again = findWorkspace(elsewhere + "/ws");
    const whole = await makeWorkspace(elsewhere, { ${POPULATE} });
    console.log(JSON.stringify({ root: found.control.root, at: again?.control.root, same: again?.workspace.id === found.workspace.id, warnings, whole: whole.found.control.root }));`;
    const child = spawnSync(
      "unshare",
      [
        "-m",
        process.execPath,
        "--input-type=module",
        "-e",
        script,
        join(directory, "disk"),
        join(directory, "elsewhere"),
        join(directory, "state"),
      ],
      { encoding: "utf8" },
    );
    assert.equal(child.status, 0, child.stderr);
    const seen = JSON.parse(child.stdout) as {
      root: string;
      at: string;
      same: boolean;
      warnings: string[];
      whole: string;
    };
    assert.ok(seen.root.startsWith(join(directory, "disk", ".cairn-control")));
    assert.equal(seen.at, seen.root.replace("/disk/", "/elsewhere/"), "the registry is gone");
    assert.deepEqual([seen.same, seen.warnings.length], [true, 1]);
    assert.ok(seen.whole.startsWith(join(directory, "state")), "a mount's root itself is kept outside it");
  },
);

test("chooseControlDirectory returns a path with the reason for it, and creates nothing", (context) => {
  const directory = scratch(context);
  const id = newControlId();
  const chosen = chooseControlDirectory(Buffer.from(join(directory, "ws")), { id });
  assert.deepEqual([chosen.where, chosen.root], ["user-state", join(directory, "state", "cairn", "control", id)]);
  assert.equal(existsSync(join(directory, "state")), false);
  assert.deepEqual(controlWarnings(chosen.root, join(directory, "ws")), []);
});

test("a folder with a chosen control directory keeps its history without the registry; its copy is another folder", async (context) => {
  const directory = scratch(context);
  const [folder, controlDirectory] = [join(directory, "ws"), join(directory, "disk", "points")];
  const { found } = await make(folder, { controlDirectory });
  if (noteAt(Buffer.from(folder)) === null) return context.skip("no extended attributes here");
  const loseState = (): void => rmSync(join(directory, "state"), { recursive: true });
  loseState();
  assert.equal(findWorkspace(join(folder, "sub"))?.workspace.id, found.workspace.id);
  assert.equal((await make(folder)).created, false);
  noteFolder(findWorkspace(folder)!, {});
  assert.equal(listRegistered().length, 1, "a save registers the folder again");

  const copy = join(directory, "copy");
  spawnSync("cp", ["-a", folder, copy]);
  assert.equal(findWorkspace(copy), null);
  const second = await make(copy);
  assert.equal(attributeOf(Buffer.from(copy), FOLDER_NOTE), null, "the copied note has no use");
  assert.notEqual(second.found.workspace.id, found.workspace.id);

  loseState();
  renameSync(folder, join(directory, "moved"));
  const wayOut = `--control-dir ${controlDirectory} relocate ${folder} ${join(directory, "moved")}`;
  await assert.rejects(make(join(directory, "moved")), (error: CairnError) => error.hint?.includes(wayOut) === true);
  renameSync(join(directory, "moved"), folder);
  renameSync(controlDirectory, join(directory, "away"));
  await assert.rejects(make(folder), hasCode("not_found"));
  const note = noteAt(Buffer.from(folder))!;
  setAttributeOf(Buffer.from(folder), FOLDER_NOTE, encodeRegistration({ ...note, uid: 65_533 } as FolderNote));
  assert.equal((await make(folder)).created, true, "another user's note locks nobody out");
});
