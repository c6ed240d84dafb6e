import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { lockRegistry, noteRelease } from "../workspace/registry.ts";
import { hasCode, type TestFolder, testFolder } from "./testing-folder.ts";

const ENTRY = new URL("../cli/entry.ts", import.meta.url).pathname;

function cairn(
  words: readonly string[],
  failpoint?: string,
): { status: number | null; signal: string | null; stderr: string } {
  const { CAIRN_FAILPOINT: _inherited, ...rest } = process.env;
  const env = failpoint === undefined ? rest : { ...rest, CAIRN_FAILPOINT: failpoint };
  const { status, signal, stderr } = spawnSync(process.execPath, [ENTRY, ...words], { env, encoding: "utf8" });
  return { status, signal, stderr };
}

test("a released folder is kept no more, and its points are taken up by the next adoption", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const point = await client.save({ message: "kept" });
  const { workspace, points_deleted } = await client.release();
  assert.deepEqual([workspace.path, points_deleted], [folder, 0]);
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "one");
  await assert.rejects(library.open(folder), hasCode("not_a_workspace"));
  assert.deepEqual(await library.listWorkspaces(), []);
  assert.deepEqual(readdirSync(join(root, "state", "cairn", "workspaces")), []);
  const again = await library.adopt(folder);
  assert.deepEqual([again.created, again.repoId, again.workspace.id], [true, client.repoId, client.workspace.id]);
  const { save_points, head } = await again.history();
  assert.deepEqual([save_points.map(({ message }) => message), head], [["kept"], point.save_point_id]);
});

test("a folder with a control directory that was named is taken up again from there", async (t) => {
  const { library, root } = await testFolder(t);
  const folder = join(root, "other");
  mkdirSync(folder);
  const controlDirectory = join(root, "control");
  const client = await library.adopt(folder, { controlDirectory });
  await client.save();
  await client.release();
  const again = await library.adopt(folder, { controlDirectory });
  assert.equal(again.workspace.id, client.workspace.id);
  assert.equal((await again.history()).save_points.length, 1);
});

test("a self-contained workspace is released and taken up again by init, or goes whole", async (t) => {
  const { library, root } = await testFolder(t);
  const path = join(root, "self");
  const client = await library.init(path);
  writeFileSync(join(path, "main", "a"), "one");
  await client.save();
  await client.release();
  await assert.rejects(library.open(path), hasCode("not_a_workspace"));
  const again = await library.openOrInit(path);
  assert.equal((await again.history()).save_points.length, 1);
  const { points_deleted, bytes_freed } = await again.release({ deletePoints: true });
  assert.deepEqual([points_deleted, bytes_freed > 0], [1, true]);
  assert.deepEqual(readdirSync(path), ["main"]);
  assert.equal(readFileSync(join(path, "main", "a"), "utf8"), "one");
});

test("release with deletePoints removes the control directory with the last workspace only", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const other = join(root, "other");
  mkdirSync(other);
  writeFileSync(join(other, "b"), "two");
  const second = await library.adopt(other, { controlDirectory: client.controlDirectory });
  await client.save();
  const kept = await second.save();
  const { points_deleted, bytes_freed } = await client.release({ deletePoints: true });
  assert.deepEqual([points_deleted, bytes_freed > 0], [1, true]);
  assert.ok(existsSync(client.controlDirectory));
  const { snapshots } = { snapshots: readdirSync(join(client.controlDirectory, "store", "snapshots")) };
  assert.equal(snapshots.length, 1);
  rmSync(join(other, "b"));
  await second.restore({ target: kept.save_point_id });
  assert.equal(readFileSync(join(other, "b"), "utf8"), "two");
  await second.release({ deletePoints: true });
  assert.ok(!existsSync(client.controlDirectory));
  assert.ok(existsSync(join(folder, "a")) && existsSync(join(other, "b")));
});

test("a store with snapshots of others stays", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  await client.save();
  const { repository, password_file } = await client.store();
  const words = ["-r", repository, "--password-file", password_file, "--no-cache", "backup", "/etc/hostname"];
  const restic = spawnSync("restic", words, { encoding: "utf8" });
  if (restic.error !== undefined || restic.status !== 0) {
    t.skip("restic is not installed");
    return;
  }
  const warnings: string[] = [];
  await client.release({ deletePoints: true, onWarning: (message) => warnings.push(message) });
  assert.match(warnings.join(), /did not make/);
  assert.equal(readdirSync(join(repository, "snapshots")).length, 1);
});

type Kind = "default" | "named" | "self-contained";

interface KilledRelease extends TestFolder {
  kept: string;
  saved: string;
  control: string;
  /** Where the control directory lies; of another kind than the default, nothing else of Cairn's ever comes there. */
  place: string;
}

/** A workspace whose release, with its points, was killed. */
async function killedRelease(
  t: TestContext,
  kind: Kind,
  failpoint = "release.control-renamed",
): Promise<KilledRelease> {
  const scene = await testFolder(t, { a: "one" });
  const root = join(scene.root, "place");
  const kept = join(root, "main");
  mkdirSync(root);
  if (kind !== "self-contained") mkdirSync(kept);
  const client = await (kind === "self-contained"
    ? scene.library.init(root)
    : scene.library.adopt(kept, kind === "named" ? { controlDirectory: join(root, "control") } : {}));
  writeFileSync(join(kept, "a"), "secret");
  const { save_point_id: saved } = await client.save();
  assert.equal(cairn(["release", kept, "--delete-points"], failpoint).signal, "SIGKILL");
  const control = client.controlDirectory;
  return { ...scene, kept, saved, control, place: dirname(control) };
}

function leftIn({ place }: KilledRelease): string[] {
  return readdirSync(place).filter((name) => name.startsWith(".cairn-tmp-"));
}

function notesOf({ root }: TestFolder): string[] {
  return readdirSync(join(root, "state/cairn/releasing"));
}

for (const kind of ["default", "named", "self-contained"] as const) {
  test(`a release of a ${kind} control directory that is killed before it removes it leaves everything kept`, async (t) => {
    const scene = await killedRelease(t, kind, "release.noted");
    const { library, kept, saved, control } = scene;
    const { save_points } = await (await library.open(kept)).history();
    assert.deepEqual(
      save_points.map(({ save_point_id }) => save_point_id),
      [saved],
    );
    const { points_deleted } = await (await library.open(kept)).release({ deletePoints: true });
    assert.deepEqual([points_deleted, existsSync(control), leftIn(scene), notesOf(scene)], [1, false, [], []]);
  });

  for (const failpoint of ["release.control-renamed", "release.control-unregistered", "release.control-removed"]) {
    test(`a release of a ${kind} control directory killed at ${failpoint} has no points left`, async (t) => {
      const scene = await killedRelease(t, kind, failpoint);
      const { library, kept, control } = scene;
      assert.deepEqual(
        (await library.listWorkspaces()).filter(({ path }) => path === kept),
        [],
      );
      await assert.rejects(library.open(kept), hasCode("not_a_workspace"));
      const again = await library.openOrAdopt(kept);
      assert.deepEqual((await again.history()).save_points, []);
      assert.deepEqual([existsSync(control), leftIn(scene), notesOf(scene)], [false, [], []]);
      await again.release({ deletePoints: true });
      assert.ok(!(await library.listWorkspaces()).some(({ path }) => path === kept));
    });
  }
}

test("a folder whose control directory cannot be renamed, to be removed, is still kept", async (t) => {
  const { client, folder, library } = await testFolder(t, { a: "one" });
  const { save_point_id: id } = await client.save();
  const control = client.controlDirectory;
  if (spawnSync("mount", ["--bind", control, control]).status !== 0) return t.skip("no mounting");
  const unmount = (): unknown => spawnSync("umount", [control], { stdio: "ignore" });
  t.after(unmount);
  assert.match(cairn(["release", folder, "--delete-points"]).stderr, /busy/);
  assert.equal((await (await library.open(folder)).latestSavePoint())?.save_point_id, id);
  unmount();
  const { points_deleted } = await (await library.open(folder)).release({ deletePoints: true });
  assert.deepEqual([points_deleted, existsSync(control)], [1, false]);
});

for (const kind of ["named", "self-contained"] as const) {
  void describe(`what a killed release left of a ${kind} control directory`, () => {
    const next: [string, (scene: KilledRelease) => Promise<unknown>][] = [
      ["a second release", async ({ kept }) => assert.equal(cairn(["release", kept, "--delete-points"]).status, 0)],
      ["the next adoption", async ({ library, kept }) => library.adopt(kept)],
      [
        "the adoption of another folder",
        async ({ library, root }) => (mkdirSync(join(root, "x")), library.adopt(join(root, "x"))),
      ],
      ["the release of another folder", async ({ client }) => client.release()],
      ["doctor --repair", async ({ client }) => client.doctor({ repair: true })],
    ];
    if (kind === "self-contained")
      next.push([
        "an init in its place",
        async ({ library, kept, place }) => (rmSync(kept, { recursive: true }), library.init(place)),
      ]);
    for (const [what, does] of next) {
      test(`is removed by ${what}`, async (t) => {
        const scene = await killedRelease(t, kind);
        await does(scene);
        assert.deepEqual([leftIn(scene), notesOf(scene)], [[], []]);
      });
    }
  });
}

test("doctor names what a killed release left, but nothing of a release that is under way", async (t) => {
  const scene = await killedRelease(t, "named");
  const named = async (): Promise<string[]> =>
    (await scene.client.doctor()).findings.flatMap(({ kind, detail }) => (kind === "leftovers" ? [detail] : []));
  const [detail] = await named();
  assert.ok(detail?.includes(scene.place) && detail.includes(scene.kept), detail);
  using lock = await lockRegistry();
  assert.deepEqual(await named(), []);
  lock.release();
  assert.equal((await named()).length, 1);
});

test("doctor says that what a killed release left is not repaired where that could not be forgotten", async (t) => {
  const scene = await killedRelease(t, "named");
  const registry = join(scene.root, "state/cairn/workspaces");
  renameSync(registry, `${registry}-away`);
  symlinkSync(registry, registry);
  const repaired = async (): Promise<unknown[]> =>
    (await scene.client.doctor({ repair: true })).findings.flatMap((finding) =>
      finding.kind === "leftovers" ? [finding.repaired] : [],
    );
  assert.deepEqual(await repaired(), [false]);
  assert.equal(leftIn(scene).length, 1);
  rmSync(registry);
  renameSync(`${registry}-away`, registry);
  assert.deepEqual(await repaired(), [true]);
  assert.deepEqual([leftIn(scene), notesOf(scene)], [[], []]);
});

test("a note of a release has nothing removed but a temporary name, and waits for a place that is not there", async (t) => {
  const scene = await killedRelease(t, "named");
  const away = join(scene.root, "away");
  renameSync(scene.place, away);
  mkdirSync(join(scene.root, "x"));
  const other = await scene.library.adopt(join(scene.root, "x"));
  assert.equal(notesOf(scene).length, 1);
  renameSync(away, scene.place);
  const precious = join(scene.root, "precious");
  mkdirSync(precious);
  noteRelease({
    folder: scene.kept,
    control: precious,
    controlId: other.repoId,
    workspaceId: other.workspace.id,
    workspaceName: "main",
  });
  await other.release();
  assert.ok(existsSync(precious));
  assert.deepEqual(readdirSync(scene.place), ["main"]);
});

for (const failpoint of ["release.marked", "release.unregistered"]) {
  test(`a release that keeps the points, killed at ${failpoint}, is done and can be taken back`, async (t) => {
    const { client, folder, library } = await testFolder(t, { a: "one" });
    await client.save();
    assert.equal(cairn(["release", folder], failpoint).signal, "SIGKILL");
    await assert.rejects(library.open(folder), hasCode("not_a_workspace"));
    assert.deepEqual(await library.listWorkspaces(), []);
    if (failpoint === "release.marked") {
      const again = cairn(["release", folder, "--delete-points"]);
      assert.match(again.stderr, /a release of it was interrupted: `cairn init .*` takes it up again/);
      assert.equal(cairn(["init", folder]).status, 0);
      assert.equal(cairn(["release", folder, "--delete-points"]).status, 0);
      assert.equal(existsSync(client.controlDirectory), false);
      return;
    }
    assert.equal((await (await library.openOrAdopt(folder)).history()).save_points.length, 1);
  });
}

test("a workspace of several, killed while its points are deleted, leaves the others whole and nothing behind", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const other = join(root, "other");
  mkdirSync(other);
  const second = await library.adopt(other, { controlDirectory: client.controlDirectory });
  await client.save();
  await second.save();
  assert.equal(cairn(["release", folder, "--delete-points"], "release.workspace-renamed").signal, "SIGKILL");
  await assert.rejects(library.open(folder), hasCode("not_a_workspace"));
  await second.save();
  assert.equal((await second.history()).save_points.length, 2);
  assert.deepEqual(readdirSync(join(client.controlDirectory, "tmp")), []);
  assert.equal(cairn(["release", folder, "--delete-points"]).status, 0);
  assert.deepEqual(
    (await library.listWorkspaces()).map(({ path }) => path),
    [other],
  );
});

test("a folder whose control directory is gone can be forgotten", async (t) => {
  const { client, library, folder } = await testFolder(t);
  await assert.rejects(library.forget(folder), hasCode("conflict"));
  rmSync(client.controlDirectory, { recursive: true });
  await assert.rejects(library.open(folder), hasCode("not_found"));
  assert.match((await library.listWorkspaces())[0]?.problem ?? "", /not there/);
  assert.equal(cairn(["release", folder]).status, 0);
  assert.equal(await library.forget(folder), false);
  assert.equal((await library.openOrAdopt(folder)).created, true);
});
