import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { lockRegistry, noteRelease } from "../workspace/place/registry.ts";
import { hasCode, type TestFolder, testFolder } from "../keep/testing-folder.ts";
import { someOf } from "../../test/crash/rounds.ts";
import { firstOf } from "../../test/fixtures/long.ts";

/** Releases of a command that is killed, and who takes up or removes what it left. */

const ENTRY = fileURLToPath(new URL("../cli/program/entry.ts", import.meta.url));

function cairn(
  words: readonly string[],
  failpoint?: string,
): { status: number | null; signal: string | null; stderr: string } {
  const { CAIRN_FAILPOINT: _inherited, ...rest } = process.env;
  const env = failpoint === undefined ? rest : { ...rest, CAIRN_FAILPOINT: failpoint };
  const { status, signal, stderr } = spawnSync(process.execPath, [ENTRY, ...words], { env, encoding: "utf8" });
  return { status, signal, stderr };
}

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
    ? scene.library.init(root, { selfContained: true })
    : scene.library.init(kept, kind === "named" ? { controlDirectory: join(root, "control") } : {}));
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
  test(`a release killed before it renames a ${kind} control directory deletes nothing`, async (t) => {
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

  for (const failpoint of someOf(
    ["release.control-renamed", "release.control-unregistered", "release.control-removed"],
    2,
  )) {
    test(`a release killed at ${failpoint} leaves no points of a ${kind} control directory`, async (t) => {
      const scene = await killedRelease(t, kind, failpoint);
      const { library, kept, control } = scene;
      assert.deepEqual(
        (await library.listWorkspaces()).filter(({ path }) => path === kept),
        [],
      );
      await assert.rejects(library.open(kept), hasCode("not_a_workspace"));
      const again = await library.openOrInit(kept);
      assert.deepEqual((await again.history()).save_points, []);
      assert.deepEqual([existsSync(control), leftIn(scene), notesOf(scene)], [false, [], []]);
      await again.release({ deletePoints: true });
      assert.ok(!(await library.listWorkspaces()).some(({ path }) => path === kept));
    });
  }
}

for (const kind of firstOf(["self-contained", "named"] as const, 1)) {
  void describe(`leftovers of a killed release of a ${kind} control directory`, () => {
    const next: [string, (scene: KilledRelease) => Promise<unknown>][] = [
      ["a second release", async ({ kept }) => assert.equal(cairn(["release", kept, "--delete-points"]).status, 0)],
      ["the next init", async ({ library, kept }) => library.init(kept)],
      [
        "the init of another folder",
        async ({ library, root }) => (mkdirSync(join(root, "x")), library.init(join(root, "x"))),
      ],
      ["the release of another folder", async ({ client }) => client.release()],
      ["doctor --repair", async ({ client }) => client.doctor({ repair: true })],
    ];
    if (kind === "self-contained")
      next.push([
        "an init in its place",
        async ({ library, kept, place }) => (
          rmSync(kept, { recursive: true }),
          library.init(place, { selfContained: true })
        ),
      ]);
    for (const [what, does] of next) {
      test(`${what} removes the leftovers of a killed release`, async (t) => {
        const scene = await killedRelease(t, kind);
        await does(scene);
        assert.deepEqual([leftIn(scene), notesOf(scene)], [[], []]);
      });
    }
  });
}

test("doctor names leftovers of a killed release, but none of a running release", async (t) => {
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

test("doctor reports leftovers of a killed release as not repaired if the registration cannot be removed", async (t) => {
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

test("a release's note stays while its folder is missing, and removes only folders with temporary names", async (t) => {
  const scene = await killedRelease(t, "named");
  const away = join(scene.root, "away");
  renameSync(scene.place, away);
  mkdirSync(join(scene.root, "x"));
  const other = await scene.library.init(join(scene.root, "x"));
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
  test(`a release without --delete-points killed at ${failpoint} releases the folder and keeps the points`, async (t) => {
    const { client, folder, library } = await testFolder(t, { a: "one" });
    await client.save();
    assert.equal(cairn(["release", folder], failpoint).signal, "SIGKILL");
    await assert.rejects(library.open(folder), hasCode("not_a_workspace"));
    assert.deepEqual(await library.listWorkspaces(), []);
    if (failpoint === "release.marked") {
      assert.equal(cairn(["init", folder]).status, 0);
      assert.equal(cairn(["release", folder], failpoint).signal, "SIGKILL");
      assert.equal(cairn(["release", folder, "--delete-points"]).status, 0);
      assert.equal(existsSync(client.controlDirectory), false);
      return;
    }
    assert.equal((await (await library.openOrInit(folder)).history()).save_points.length, 1);
  });
}

test("a release killed while it deletes the points of one workspace keeps the points of the other", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const other = join(root, "other");
  mkdirSync(other);
  const second = await library.init(other, { controlDirectory: client.controlDirectory });
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
