import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { CairnError } from "../errors.ts";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import { acquireLock } from "../fs/lock.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

const ENTRY = fileURLToPath(new URL("../cli/program/entry.ts", import.meta.url));

test("relocate records the new path of a moved folder, and keeps its points", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const moved = join(root, "moved");
  renameSync(folder, moved);
  const [missing] = await library.listWorkspaces();
  assert.deepEqual([missing?.present, missing?.points, missing?.path], [false, 1, folder]);
  const { workspace, from } = await library.relocate(folder, moved);
  assert.deepEqual([workspace.path, workspace.id, from], [moved, client.workspace.id, folder]);
  const [present] = await library.listWorkspaces();
  assert.deepEqual([present?.present, present?.path], [true, moved]);
  const again = await library.open(moved);
  assert.equal((await again.save()).unchanged, true);
  await assert.rejects(library.open(folder), hasCode("not_a_workspace"));
});

test("a repeated relocate returns the same result and changes nothing", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const moved = join(root, "moved");
  renameSync(folder, moved);
  const first = await library.relocate(folder, moved);
  const record = join(client.controlDirectory, "workspaces/main/workspace.json");
  const before = readFileSync(record);
  assert.deepEqual(await library.relocate(folder, moved), first);
  assert.deepEqual(readFileSync(record), before);
  await assert.rejects(library.relocate(join(root, "other"), moved), hasCode("not_found"));
  mkdirSync(folder);
  await assert.rejects(library.relocate(folder, moved), hasCode("not_found"));
  rmSync(folder, { recursive: true });
  const away = join(root, "away");
  renameSync(moved, away);
  await library.relocate(moved, away);
  assert.equal((await library.relocate(moved, away)).workspace.id, client.workspace.id);
  await assert.rejects(library.relocate(folder, away), hasCode("not_found"));
});

test("relocate refuses a folder that was not moved, and a target that is a different folder or workspace", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one", b: "two" });
  await client.save();
  const other = join(root, "other");
  mkdirSync(other);
  writeFileSync(join(other, "x"), "else");
  await assert.rejects(library.relocate(folder, other), hasCode("conflict"));
  await assert.rejects(library.relocate(folder, join(root, "nowhere")), hasCode("not_found"));
  const moved = join(root, "moved");
  renameSync(folder, moved);
  await assert.rejects(library.relocate(folder, other), hasCode("conflict"));
  await (await library.init(other)).save();
  await assert.rejects(library.relocate(folder, other), hasCode("conflict"));
  assert.equal((await library.relocate(folder, moved)).workspace.path, moved);
});

test("relocate replaces an empty workspace at the new path", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const { save_point_id: id } = await client.save();
  const moved = join(root, "moved");
  renameSync(folder, moved);
  const looked = await library.init(moved);
  await looked.save();
  await assert.rejects(
    library.relocate(folder, moved),
    (error) => hasCode("conflict")(error) && (error as CairnError).hint?.includes(`cairn release ${moved}`) === true,
  );
  await looked.release({ deletePoints: true });
  const empty = await library.init(moved);
  assert.equal((await library.relocate(folder, moved)).workspace.id, client.workspace.id);
  const again = await library.open(moved);
  assert.deepEqual(
    [again.controlDirectory, (await again.resolve("head")).save_point_id],
    [client.controlDirectory, id],
  );
  // Else the next save of the folder might take that one up.
  assert.equal(existsSync(empty.controlDirectory), false);
  assert.deepEqual(
    (await library.listWorkspaces()).map(({ path, points }) => [path, points]),
    [[moved, 1]],
  );
});

for (const released of [false, true]) {
  test(`relocate finds the points if folder and control directory were moved${released ? " after a release" : ""}`, async (t) => {
    const { client, library, folder, root } = await testFolder(t, { a: "one" });
    const { save_point_id: id } = await client.save();
    const fork = join(root, "fork");
    await client.fork("head", fork);
    const [moved, control] = [join(root, "moved"), join(root, "control")];
    renameSync(folder, moved);
    if (released) await client.release();
    renameSync(client.controlDirectory, control);
    if (!released)
      await assert.rejects(
        library.relocate(folder, moved),
        (error) => hasCode("not_found")(error) && (error as CairnError).hint?.includes("--control-dir") === true,
      );
    const options = { controlDirectory: control };
    const { workspace } = await library.relocate(folder, moved, options);
    assert.deepEqual([workspace.path, workspace.id], [moved, client.workspace.id]);
    const again = await library.open(moved);
    assert.deepEqual([again.controlDirectory, (await again.resolve("head")).save_point_id], [control, id]);
    assert.equal((await again.save()).unchanged, true);
    // What else that directory keeps is found there too.
    assert.equal((await library.open(fork)).controlDirectory, control);
    assert.equal((await library.relocate(folder, moved, options)).workspace.id, client.workspace.id);
    await assert.rejects(library.open(folder), hasCode("not_a_workspace"));
  });
}

test("relocate records a moved control directory, but not a copy of one", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const [copy, control] = [join(root, "copy"), join(root, "control")];
  cpSync(client.controlDirectory, copy, { recursive: true });
  await assert.rejects(library.relocate(folder, folder, { controlDirectory: copy }), hasCode("conflict"));
  await assert.rejects(
    library.relocate(folder, folder, { controlDirectory: join(root, "none") }),
    hasCode("not_a_workspace"),
  );
  renameSync(client.controlDirectory, control);
  await assert.rejects(
    library.open(folder),
    (error) =>
      hasCode("not_found")(error) && (error as CairnError).hint?.includes("--control-dir DIR relocate") === true,
  );
  await library.relocate(folder, folder, { controlDirectory: control });
  assert.equal((await library.open(folder)).controlDirectory, control);
  await assert.rejects(
    library.relocate(join(root, "never"), root, { controlDirectory: control }),
    hasCode("not_found"),
  );
});

test("relocate accepts a copy of the folder that has the entries of the last point", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one", b: "two" });
  await client.save();
  const copied = join(root, "copied");
  cpSync(folder, copied, { recursive: true });
  rmSync(folder, { recursive: true });
  assert.equal((await library.relocate(folder, copied)).workspace.path, copied);
});

test("relocate records the new path of a moved self-contained workspace", async (t) => {
  const { library, root } = await testFolder(t);
  const [old, now] = [join(root, "old"), join(root, "now")];
  await (await library.init(old, { selfContained: true })).save();
  renameSync(old, now);
  assert.equal((await library.relocate(old, now)).workspace.path, join(now, "main"));
  assert.equal((await library.relocate(old, now)).workspace.path, join(now, "main"));
  assert.equal((await (await library.open(now)).history()).save_points.length, 1);
});

test("relocate of a moved self-contained workspace waits for the workspace's lock", async (t) => {
  const { library, root } = await testFolder(t);
  const [old, now] = [join(root, "old"), join(root, "now")];
  await (await library.init(old, { selfContained: true })).save();
  renameSync(old, now);
  const record = join(now, ".cairn/workspaces/main/workspace.json");
  const before = readFileSync(record, "utf8");
  using lock = await acquireLock(join(now, ".cairn/workspaces/main/lock"), { purpose: "save" });
  await assert.rejects(library.relocate(old, now, { lockTimeoutMs: 0 }), hasCode("busy"));
  assert.equal(readFileSync(record, "utf8"), before);
  lock.release();
  await library.relocate(old, now, { lockTimeoutMs: 0 });
  assert.notEqual(readFileSync(record, "utf8"), before);
});

for (const failpoint of ["relocate.registered", "relocate.moved"]) {
  test(`relocate finishes a relocate that was killed at ${failpoint}`, async (t) => {
    const { client, library, folder, root } = await testFolder(t, { a: "one" });
    await client.save();
    const moved = join(root, "moved");
    renameSync(folder, moved);
    const env = { ...process.env, CAIRN_FAILPOINT: failpoint };
    assert.equal(spawnSync(process.execPath, [ENTRY, "relocate", folder, moved], { env }).signal, "SIGKILL");
    if (failpoint === "relocate.registered") await assert.rejects(library.open(moved), hasCode("not_a_workspace"));
    else assert.equal((await library.open(moved)).workspace.id, client.workspace.id);
    assert.equal((await library.relocate(folder, moved)).workspace.id, client.workspace.id);
    assert.equal((await library.listWorkspaces()).length, 1);
    assert.equal((await (await library.open(moved)).history()).save_points.length, 1);
  });
}

test("a copied control directory names the folder that it has points of, and the line that connects the copied folder", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const [copied, control] = [join(root, "copied"), join(root, "points")];
  cpSync(folder, copied, { recursive: true });
  renameSync(client.controlDirectory, control);
  rmSync(folder, { recursive: true });
  const given = { controlDirectory: control };
  for (const attempt of [
    () => library.init(copied, given),
    () => library.openOrInit(copied, given),
    () => library.open(copied, given),
    () => library.relocate(join(root, "never"), copied, given),
  ]) {
    const refused = await attempt().catch((error: unknown) => error);
    assert.ok(refused instanceof CairnError);
    assert.ok(refused.message.includes(`has the save points of ${folder}, which is not there`), refused.message);
    assert.ok(refused.hint?.includes(`: cairn --control-dir ${control} relocate ${folder} ${copied};`), refused.hint);
  }
  await library.relocate(folder, copied, given);
  assert.equal((await (await library.open(copied)).history()).save_points.length, 1);
});

test("openOrInit refuses a control directory without the folder's workspace, and accepts a copy of the right one", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const other = join(root, "other");
  await assert.rejects(library.openOrInit(folder, { controlDirectory: other }), hasCode("conflict"));
  assert.equal((await library.openOrInit(folder, { controlDirectory: client.controlDirectory })).created, false);
  cpSync(client.controlDirectory, other, { recursive: true });
  assert.equal((await library.openOrInit(folder, { controlDirectory: other })).controlDirectory, other);
});

test("doctor rebuilds a descriptor with the right content, even if moved folders and forks saved the same content", async (t) => {
  const { client, library, folder, root } = await testFolder(t, {
    a: "one",
    "below/b": "two",
    "below/further/c": "three",
  });
  await client.save();
  const moved = join(root, "deep/er/moved");
  mkdirSync(join(root, "deep/er"), { recursive: true });
  renameSync(folder, moved);
  await library.relocate(folder, moved);
  const again = await library.open(moved);
  const { save_point_id: id } = await again.save();
  const fork = join(root, "deep/er/still/fork");
  mkdirSync(join(root, "deep/er/still"));
  await again.fork(id, fork);
  // Where the folders above the point's own were.
  const away = join(root, "away");
  renameSync(moved, away);
  await library.relocate(moved, away);
  renameSync(join(root, "deep"), join(root, "aside"));
  await library.relocate(fork, join(root, "aside/er/still/fork"));
  mkdirSync(join(root, "deep"));
  const above = await library.open(away);
  await above.fork(id, join(root, "deep/er"));
  for (const [at, name, sequence] of [
    [above, "main", 2],
    [await library.open(join(root, "aside/er/still/fork")), "fork", 1],
    [await library.open(join(root, "deep/er")), "er", 1],
  ] as const) {
    const points = join(at.controlDirectory, "workspaces", name, "points");
    writeFileSync(join(points, String(sequence).padStart(10, "0"), "descriptor.json"), "nonsense");
    await at.doctor({ repair: true });
    const to = join(root, `given-${name}`);
    await at.restore({ target: "latest", to });
    assert.equal(walkDigests(to).state, walkDigests(away).state, name);
  }
});

test("relocate of a folder that lies in another workspace needs the guard nested to be allowed", async (t) => {
  const { client, library, folder } = await testFolder(t, { a: "one" });
  await client.save();
  const [inner, moved] = [join(folder, "inner"), join(folder, "moved")];
  mkdirSync(inner);
  await (await library.init(inner, { allow: ["nested"] })).save();
  renameSync(inner, moved);
  await assert.rejects(library.relocate(inner, moved), (error: CairnError) => {
    assert.match(error.hint!, /--allow nested$/);
    return hasCode("refused")(error);
  });
  await library.relocate(inner, moved, { allow: ["nested"] });
  assert.equal((await (await library.open(moved)).history()).save_points.length, 1);
});

test("opening or saving a renamed folder relocates its workspace", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const { save_point_id: id } = await client.save();
  const moved = join(root, "moved");
  renameSync(folder, moved);
  const followed = await library.openOrInit(moved);
  assert.deepEqual([followed.followedFrom, followed.created, followed.workspacePath()], [folder, false, moved]);
  assert.equal((await followed.save()).parent_id, id);
  assert.equal((await library.openOrInit(moved)).followedFrom, null);
  await assert.rejects(library.open(folder), hasCode("not_a_workspace"));
});

test("a renamed folder is not relocated while another folder is at its old path", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const moved = join(root, "moved");
  renameSync(folder, moved);
  mkdirSync(folder);
  await assert.rejects(
    library.openOrInit(moved),
    (error) =>
      hasCode("conflict")(error) && (error as CairnError).hint?.includes(`cairn relocate ${folder} ${moved}`) === true,
  );
  assert.deepEqual(
    (await library.listWorkspaces()).map(({ path }) => path),
    [folder],
  );
});

test("a bind mount of a folder at a second path is refused, and does not count as a move", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const second = join(root, "second");
  mkdirSync(second);
  if (spawnSync("mount", ["--bind", folder, second]).status !== 0) return t.skip("bind mounts cannot be made here");
  try {
    await assert.rejects(library.openOrInit(second), { code: "refused" });
    assert.equal((await library.open(folder)).workspace.id, client.workspace.id);
  } finally {
    spawnSync("umount", [second]);
  }
});

test("relocate and save follow a folder that was moved and left a link behind", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const [first, second] = [join(root, "first"), join(root, "second")];
  renameSync(folder, first);
  symlinkSync(first, folder);
  assert.equal((await library.relocate(folder, first)).workspace.path, first);
  renameSync(first, second);
  symlinkSync("second", first);
  const followed = await library.openOrInit(first);
  assert.deepEqual([followed.workspace.path, followed.workspace.id], [second, client.workspace.id]);
  assert.equal((await followed.save()).unchanged, true);
});

test("the first save of a moved folder warns with the commands that bring its points back", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const moved = join(root, "moved");
  renameSync(folder, moved);
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const made = await library.init(moved, { onWarning });
  assert.equal(warnings.length, 1, warnings.join("\n"));
  assert.ok(warnings[0]!.endsWith(`: cairn release ${moved} && cairn relocate ${folder} ${moved}`), warnings[0]);
  await made.release();
  await library.relocate(folder, moved);
  assert.equal((await (await library.open(moved)).history()).save_points.length, 1);
  // Another folder than the one that is missing.
  renameSync(moved, join(root, "away"));
  mkdirSync(join(root, "other"));
  await library.init(join(root, "other"), { onWarning });
  assert.equal(warnings.length, 1, warnings.join("\n"));
  // Nor one that was made since, to which the file system has given the number again.
  rmSync(join(root, "away"), { recursive: true });
  mkdirSync(join(root, "next"));
  await library.init(join(root, "next"), { onWarning });
  assert.equal(warnings.length, 1, warnings.join("\n"));
});

test("another folder is saved into a control directory whose first folder was deleted", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const second = join(root, "second");
  mkdirSync(second);
  rmSync(folder, { recursive: true });
  const { created } = await library.openOrInit(second, { controlDirectory: client.controlDirectory });
  assert.equal(created, true);
});
