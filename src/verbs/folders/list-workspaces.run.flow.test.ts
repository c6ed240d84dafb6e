import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { hasCode, testFolder } from "../../keep/testing-folder.ts";

test("listWorkspaces lists a self-contained workspace after init or open on this machine", async (t) => {
  const { root, library, folder } = await testFolder(t);
  const made = await library.init(join(root, "agent"), { selfContained: true });
  writeFileSync(join(root, "agent/main/file"), "x");
  await made.save();
  const listed = await library.listWorkspaces();
  assert.deepEqual(
    listed.map(({ path, present, points, problem }) => [path, present, points, problem]),
    [
      [join(root, "agent/main"), true, 1, undefined],
      [folder, true, 0, undefined],
    ],
  );
  // Another user, or host, who finds it there.
  rmSync(join(root, "state"), { recursive: true });
  assert.deepEqual(await library.listWorkspaces(), []);
  await library.open(join(root, "agent/main"));
  assert.deepEqual(
    (await library.listWorkspaces()).map(({ path }) => path),
    [join(root, "agent/main")],
  );
});

test("listWorkspaces lists a moved self-contained workspace at its new path after open", async (t) => {
  const { root, library, client } = await testFolder(t);
  await client.release();
  const before = join(root, "before");
  await library.init(before, { selfContained: true });
  renameSync(before, join(root, "after"));
  const [missing, ...more] = await library.listWorkspaces();
  assert.deepEqual([missing!.path, missing!.present, more], [join(before, "main"), false, []]);
  assert.match(missing!.problem!, /control directory .* is not there/);
  await library.open(join(root, "after"));
  assert.deepEqual(
    (await library.listWorkspaces()).map(({ path, present }) => [path, present]),
    [[join(root, "after/main"), true]],
  );
  // Its old place is nobody's: another one may be made there.
  const again = await library.init(before, { selfContained: true });
  assert.equal(again.created, true);
  assert.equal((await library.listWorkspaces()).length, 2);
  assert.equal(await library.forget(join(root, "after")), false, "it is there");
  rmSync(join(root, "after"), { recursive: true });
  assert.equal((await library.listWorkspaces()).filter(({ present }) => !present).length, 1);
  assert.equal(await library.forget(join(root, "after")), true);
  assert.deepEqual(
    (await library.listWorkspaces()).map(({ path }) => path),
    [join(before, "main")],
  );
  await again.release({ deletePoints: true });
  assert.deepEqual(await library.listWorkspaces(), []);
  assert.deepEqual(readdirSync(join(root, "state/cairn/self-contained")), []);
});

test("listWorkspaces lists a copy of a self-contained workspace in addition to the original", async (t) => {
  const { root, library, client } = await testFolder(t);
  await client.release();
  const [first, copy] = [join(root, "first"), join(root, "copy")];
  await (await library.init(first, { selfContained: true })).save();
  cpSync(first, copy, { recursive: true });
  await (await library.open(copy)).save();
  assert.deepEqual(
    (await library.listWorkspaces()).map(({ path, present, points, control_directory: control }) => [
      path,
      present,
      points,
      control,
    ]),
    [copy, first].map((place) => [join(place, "main"), true, place === copy ? 2 : 1, join(place, ".cairn")]),
  );
  // Which of the two is left is the one that is meant: as after a move.
  rmSync(first, { recursive: true });
  assert.deepEqual(
    (await library.listWorkspaces()).map(({ path }) => path),
    [join(copy, "main")],
  );
});

test("listWorkspaces lists a relocated self-contained workspace at its new path", async (t) => {
  const { root, library, client } = await testFolder(t);
  await client.release();
  await library.init(join(root, "before"), { selfContained: true });
  renameSync(join(root, "before"), join(root, "after"));
  await library.relocate(join(root, "before"), join(root, "after"));
  const listed = await library.listWorkspaces();
  assert.deepEqual(
    listed.map(({ path, present }) => [path, present]),
    [[join(root, "after/main"), true]],
  );
});

test("listWorkspaces lists a self-contained workspace only once if it replaced a removed one at the same path", async (t) => {
  const { root, library, client } = await testFolder(t);
  await client.release();
  for (const round of [1, 2]) {
    rmSync(join(root, "agent"), { recursive: true, force: true });
    await library.init(join(root, "agent"), { selfContained: true });
    const listed = await library.listWorkspaces();
    assert.deepEqual(
      listed.map(({ path, problem }) => [path, problem]),
      [[join(root, "agent/main"), undefined]],
      `round ${round}`,
    );
  }
});

test("a self-contained workspace works although the state directory cannot register it", async (t) => {
  const { root, library } = await testFolder(t);
  rmSync(join(root, "state/cairn/self-contained"), { recursive: true, force: true });
  writeFileSync(join(root, "state/cairn/self-contained"), "in the way");
  const made = await library.init(join(root, "agent"), { selfContained: true });
  assert.equal((await made.save()).sequence, 1);
  await assert.rejects(library.open(join(root, "nothing")), hasCode("not_a_workspace"));
  mkdirSync(join(root, "nothing"));
  assert.equal((await library.listWorkspaces()).length, 1);
});

test("listWorkspaces lists a workspace whose control file is damaged, with the problem, and the others as usual", async (t) => {
  const { root, library, folder, client } = await testFolder(t);
  await client.save();
  mkdirSync(join(root, "other"));
  const other = await library.openOrInit(join(root, "other"));
  await other.save();
  writeFileSync(join(client.workspace.control_directory, "cairn.json"), "{");
  const listed = await library.listWorkspaces();
  assert.deepEqual(
    listed.map(({ path, present, points }) => [path, present, points]),
    [
      [folder, true, 0],
      [join(root, "other"), true, 1],
    ].toSorted(),
  );
  assert.match(listed.find(({ path }) => path === folder)!.problem!, /cairn\.json.*not valid JSON/);
});

test("the name of a self-contained workspace has letters, digits, - and _", async (t) => {
  const { library, root } = await testFolder(t);
  for (const name of ["", "a/b", "a b", "a\n", "ä", "x".repeat(61)]) {
    await assert.rejects(library.init(join(root, "new"), { selfContained: true, name }), hasCode("usage"));
    await assert.rejects(library.openOrInit(root, { name, allow: ["nested"] }), hasCode("usage"));
  }
  assert.equal((await library.init(join(root, "new"), { selfContained: true, name: "Agent_7-x" })).created, true);
});

test("a self-contained workspace takes no control directory", async (t) => {
  const { library, root } = await testFolder(t);
  const given = { selfContained: true, controlDirectory: join(root, "control") };
  await assert.rejects(library.init(join(root, "new"), given), hasCode("usage"));
  await assert.rejects(library.openOrInit(join(root, "new"), given), hasCode("usage"));
  assert.deepEqual([existsSync(join(root, "new")), existsSync(join(root, "control"))], [false, false]);
});

test("doctor names a registered folder that is missing, and errors name one that lay here or has the folder's name", async (t) => {
  const { root, library, folder, client } = await testFolder(t);
  await client.save();
  mkdirSync(join(root, "other"));
  const other = await library.openOrInit(join(root, "other"));
  await other.save();
  rmSync(folder, { recursive: true });
  const { healthy, findings } = await other.doctor();
  const gone = findings.filter(({ kind }) => kind === "gone").map(({ detail }) => detail);
  assert.deepEqual([healthy, gone.length], [true, 1]);
  assert.ok(gone[0]!.startsWith(`missing, but still registered: ${folder}`));
  const namesake = join(root, "copy", basename(folder));
  mkdirSync(namesake, { recursive: true });
  const hintAt = async (path: string): Promise<string> =>
    ((await library.open(path).catch((error: unknown) => error)) as { hint: string }).hint;
  assert.ok(!(await hintAt(join(root, "copy"))).includes(folder));
  for (const [path, now] of [
    [namesake, namesake],
    [root, "NEW"],
    [join(folder, "below"), "NEW"],
  ] as const) {
    const hint = await hintAt(path);
    assert.ok(hint.startsWith(`${folder} is missing: \`cairn -C ${folder} restore latest\` restores it`), hint);
    assert.ok(hint.includes(`cairn relocate ${folder} ${now};`), hint);
  }
});
