import assert from "node:assert/strict";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { CairnError } from "../errors.ts";
import { Points } from "../workspace/points/points.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

const METHODS = ["latest", "claim", "commit", "byId"] as const;

test("calls fail with not_found if the control directory disappears meanwhile, and damage nothing", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  const { save_point_id: id } = await client.save();
  const control = client.controlDirectory;
  const calls = {
    save: async () => client.save(),
    restore: async () => client.restore({ target: "head" }),
    verify: async () => client.verify(id),
    history: async () => client.history(),
  };
  let failed = 0;
  for (const [name, call] of Object.entries(calls))
    for (const method of METHODS) {
      write("a", `${name} ${method}`);
      const whole = Points.prototype[method] as (this: Points, ...given: unknown[]) => unknown;
      let isGone = false;
      t.mock.method(Points.prototype, method, function (this: Points, ...given: unknown[]) {
        if (!isGone) renameSync(control, `${control}-away`);
        isGone = true;
        return whole.apply(this, given);
      });
      await call().then(
        () => assert.ok(name !== "save" || !isGone, `${name} ${method}`),
        (error: unknown) => {
          failed++;
          assert.ok(hasCode("not_found")(error), `${name} ${method}`);
          assert.match((error as CairnError).message, /no longer exists$/, `${name} ${method}`);
          assert.match((error as CairnError).hint ?? "", /^mount it/, `${name} ${method}`);
        },
      );
      t.mock.restoreAll();
      if (isGone) renameSync(`${control}-away`, control);
    }
  assert.ok(failed >= 5, `${failed}`);
  assert.deepEqual(
    (await client.doctor({ repair: true })).findings.filter(({ kind }) => kind !== "interrupted"),
    [],
  );
  assert.deepEqual((await client.verifyAll()).problems, []);
});

for (const part of ["cairn.json", "workspaces"])
  test(`open fails with a message that names ${part} if only that is missing, and forget still works`, async (t) => {
    const { client, library, folder } = await testFolder(t, { a: "one" });
    await client.save();
    rmSync(join(client.controlDirectory, part), { recursive: true });
    await assert.rejects(library.open(folder), (error: CairnError) => {
      assert.deepEqual([error.code, error.message.endsWith(`, where ${part} is missing`)], ["not_found", true]);
      return /cairn release/.test(error.hint ?? "");
    });
    assert.equal(await library.forget(folder), true);
    await assert.rejects(library.open(folder), hasCode("not_a_workspace"));
  });

test("openOrInit fails with damaged if all records of the folder's workspace are missing", async (t) => {
  const { client, library, folder } = await testFolder(t, { a: "one" });
  await client.save();
  rmSync(join(client.controlDirectory, "workspaces/main"), { recursive: true });
  for (const call of [library.open(folder), library.openOrInit(folder)])
    await assert.rejects(call, (error: CairnError) => {
      assert.deepEqual([error.code, error.message.includes("are missing")], ["damaged", true]);
      return /^put them back .*restic -r .*cairn release/.test(error.hint ?? "");
    });
  assert.equal(await library.forget(folder), true);
  assert.notEqual((await library.openOrInit(folder)).controlDirectory, client.controlDirectory);
});

test("save and status name doctor in the hint if the store's config or head's descriptor is missing", async (t) => {
  const { client, folder, library } = await testFolder(t, { a: "one" });
  const { sequence } = await client.save();
  await client.pin("head");
  const points = join(client.controlDirectory, "workspaces/main/points");
  const place = join(points, String(sequence).padStart(10, "0"), "descriptor.json");
  for (const [file, call] of [
    [join(client.controlDirectory, "store/config"), "save"],
    [place, "status"],
  ] as const) {
    rmSync(file);
    const again = await library.open(folder);
    await assert.rejects(again[call](), (error: CairnError) => {
      assert.deepEqual([error.code, error.hint], ["damaged", "see `cairn doctor`"], file);
      return true;
    });
    assert.equal((await again.doctor({ repair: true })).healthy, true);
  }
});

for (const name of ["cairn.json", "workspaces/main/workspace.json"])
  test(`the hint for a damaged ${name} names a copy or restic, not doctor`, async (t) => {
    const { client, library, folder } = await testFolder(t, { a: "one" });
    writeFileSync(join(client.controlDirectory, name), "{");
    await assert.rejects(library.open(folder), (error: CairnError) => {
      assert.equal(error.code, "damaged");
      return /^put that file back from a copy; .*restic -r /.test(error.hint ?? "");
    });
  });

test("calls ignore foreign files and folders among the workspaces of a control directory", async (t) => {
  const { client, library, folder } = await testFolder(t, { a: "one" });
  await client.save();
  const workspaces = join(client.controlDirectory, "workspaces");
  mkdirSync(join(workspaces, "@eaDir"));
  mkdirSync(join(workspaces, "lost%2Bfound/%2D"), { recursive: true });
  writeFileSync(join(workspaces, "notes"), "of somebody");
  const again = await library.open(folder);
  await again.save();
  assert.equal((await again.status()).store.points, 2);
  assert.deepEqual((await again.verifyAll()).problems, []);
  assert.deepEqual((await again.doctor({ repair: true })).findings, []);
  assert.equal((await again.runCleanup({ retention: { keepLast: 1 } })).removed.length, 1);
});

test("openOrInit makes no new workspace at a self-contained workspace without cairn.json", async (t) => {
  const { root, library } = await testFolder(t);
  const place = join(root, "self");
  const client = await library.init(place, { selfContained: true });
  writeFileSync(join(place, "main", "a"), "one");
  await client.save();
  const file = join(client.controlDirectory, "cairn.json");
  renameSync(file, join(root, "kept.json"));
  for (const path of [place, join(place, "main"), client.controlDirectory])
    for (const call of [async () => library.open(path), async () => library.openOrInit(path, { allow: ["nested"] })])
      await assert.rejects(call, (error: CairnError) => {
        assert.deepEqual([error.code, error.message], ["damaged", `${file} is missing`], path);
        return /^put that file back .*restic -r /.test(error.hint ?? "");
      });
  renameSync(join(root, "kept.json"), file);
  assert.equal((await (await library.open(place)).history()).save_points.length, 1);
});

test("release with deletePoints works without a key of the store, and the folder can become a workspace again", async (t) => {
  const { client, library, folder } = await testFolder(t, { a: "one" });
  await client.save();
  for (const name of ["store-key", "store-password"]) rmSync(join(client.controlDirectory, name));
  const again = await library.open(folder);
  await assert.rejects(again.save(), hasCode("damaged"));
  // One that somebody has added may open it.
  const added = join(client.controlDirectory, "store/keys", "0".repeat(64));
  writeFileSync(added, "{}");
  await assert.rejects(again.release({ deletePoints: true }), hasCode("damaged"));
  rmSync(added);
  assert.equal((await again.release({ deletePoints: true })).points_deleted, 1);
  assert.equal((await (await library.init(folder)).save()).unchanged, false);
});
