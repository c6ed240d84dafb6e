import assert from "node:assert/strict";
import { chmodSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { serve } from "../../api/repository-server/testing-server.ts";
import { CairnError } from "../../errors.ts";
import type { BackupSnapshot } from "../../contract/index.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";
import { backupScene, type BackupScene, SCHEMES } from "../testing-far.ts";

async function twoSnapshots({ client, repository, write }: BackupScene): Promise<[string, string]> {
  const first = await client.createBackup(repository, { save: true, tags: ["wip"] });
  write("a.txt", "more\n");
  const second = await client.createBackup(repository, { save: true });
  return [first.snapshot!.snapshot_id, second.snapshot!.snapshot_id];
}

async function tagsOf({ repository }: BackupScene): Promise<string[][]> {
  return (await repository.list()).snapshots.map(({ tags }) => tags);
}

const without = ({ snapshot_id: _id, tags: _tags, ...rest }: BackupSnapshot): unknown => rest;

for (const scheme of SCHEMES)
  test(`tag changes only the tags and the id of a snapshot in a ${scheme} repository`, async (t) => {
    const scene = await backupScene(t, scheme);
    const { repository, root } = scene;
    const [first, second] = await twoSnapshots(scene);
    const before = (await repository.list()).snapshots;
    const planned = await repository.tag({ snapshots: [first, second], add: ["keep"], remove: ["wip"], dryRun: true });
    assert.deepEqual(
      planned.tagged.map(({ snapshot_id: id, new_id: newId, tags }) => [id, newId, tags]),
      [
        [first, null, ["keep"]],
        [second, null, ["keep"]],
      ],
    );
    assert.deepEqual((await repository.list()).snapshots, before);
    const { tagged, unchanged } = await repository.tag({
      snapshots: [first.slice(0, 10)],
      add: ["keep"],
      remove: ["wip"],
    });
    assert.deepEqual([tagged.length, tagged[0]!.snapshot_id, unchanged], [1, first, 0]);
    const after = (await repository.list()).snapshots;
    assert.deepEqual(after.map(without), before.map(without));
    assert.deepEqual(
      after.map(({ snapshot_id: id, tags }) => [id, tags]),
      [
        [tagged[0]!.new_id, ["keep"]],
        [second, []],
      ],
    );
    const { access } = repository as OpenedRepository;
    assert.equal((await access.repository.loadSnapshot(tagged[0]!.new_id!)).original, first);
    // The first one that it was made of stays named, and the point is still found by its id.
    const again = await repository.tag({ snapshots: [after[0]!.save_point_id!], set: ["a", "b", "a"] });
    const last = await access.repository.loadSnapshot(again.tagged[0]!.new_id!);
    assert.deepEqual([last.original, again.tagged[0]!.tags], [first, ["a", "b"]]);
    assert.equal((await repository.tag({ snapshots: ["latest"], set: [] })).unchanged, 1);
    assert.notEqual((await repository.restore(again.tagged[0]!.new_id!, join(root, "back"))).proof, null);
  });

test("tag changes all snapshots that its filter matches if no snapshot is named", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository, folder } = scene;
  await twoSnapshots(scene);
  assert.equal((await repository.tag({ tags: [["wip"]], remove: ["wip"] })).tagged.length, 1);
  assert.deepEqual(await tagsOf(scene), [[], []]);
  assert.equal((await repository.tag({ paths: [folder], add: ["all"] })).tagged.length, 2);
  assert.deepEqual(await tagsOf(scene), [["all"], ["all"]]);
  assert.deepEqual((await repository.tag({ hosts: ["elsewhere"], set: [] })).tagged, []);
});

test("tag refuses a call without snapshots or without valid tags", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository } = scene;
  const [first] = await twoSnapshots(scene);
  for (const options of [
    { add: ["x"] },
    { snapshots: [first] },
    { snapshots: [first], add: ["x"], set: ["y"] },
    { snapshots: [first], add: [" "] },
    { snapshots: [first], add: ["cairn:other"] },
    { snapshots: [first], remove: ["cairn:other"] },
  ])
    await assert.rejects(repository.tag(options), hasCode("usage"), JSON.stringify(options));
  await assert.rejects(repository.tag({ snapshots: ["ffffffff"], add: ["x"] }), hasCode("not_found"));
  assert.deepEqual(await tagsOf(scene), [["wip"], []]);
});

test("tag completes a tag change that was killed after the new snapshot was written", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository } = scene;
  const [first] = await twoSnapshots(scene);
  const { access } = repository as OpenedRepository;
  const old = await access.repository.loadSnapshot(first);
  const others = old.tags!.filter((tag) => tag !== "wip");
  const left = await access.repository.saveSnapshot({
    ...old,
    tags: ["wip", "keep", ...others],
    original: first as never,
  });
  const { tagged } = await repository.tag({ snapshots: [first], add: ["keep"] });
  assert.equal(tagged[0]!.new_id, left);
  assert.deepEqual(await tagsOf(scene), [["wip", "keep"], []]);
});

test("tag warns of a snapshot that cannot be read and tags the others", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository, place } = scene;
  const [first, second] = await twoSnapshots(scene);
  const file = join(place, "snapshots", second);
  chmodSync(file, 0o600);
  writeFileSync(file, "none");
  const warnings: string[] = [];
  const { tagged } = await repository.tag({ tags: [["wip"]], add: ["x"], onWarning: (each) => warnings.push(each) });
  assert.deepEqual([tagged.length, tagged[0]!.snapshot_id], [1, first]);
  assert.match(warnings.join(), new RegExp(second.slice(0, 8)));
});

test("tag, rewrite, forget and prune write nothing if the storage allows no removal", async (t) => {
  const scene = await backupScene(t, "local");
  await twoSnapshots(scene);
  const { server } = await serve(t, { root: scene.place, appendOnly: true });
  const files = (): string[] => readdirSync(scene.place, { recursive: true, encoding: "utf8" }).toSorted();
  const before = files();
  const far = await scene.library.openRepository({ ...scene.options, repository: `rest:${server.url}` });
  t.after(async () => far.close());
  for (const change of [
    async () => far.tag({ snapshots: ["latest"], add: ["x"] }),
    async () => far.rewrite({ snapshots: ["latest"], exclude: ["a.txt"], forget: true }),
    async () => far.forget({ retention: { keepLast: 1 } }),
    async () => far.prune(),
  ])
    await assert.rejects(change, {
      code: "permission",
      message: /^nothing may be removed from .*, so nothing was changed there: .*append-only/,
      hint: /access that allows removals/,
    });
  assert.deepEqual(files(), before);
});

test("tag removes the new snapshot again if the old one cannot be removed", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository } = scene;
  const [first, second] = await twoSnapshots(scene);
  const { storage } = (repository as OpenedRepository).access;
  const remove = storage.remove.bind(storage);
  storage.remove = async (kind, name, call) => {
    if (name === first) throw new CairnError("permission", "another user's");
    return remove(kind, name, call);
  };
  await assert.rejects(repository.tag({ snapshots: [first], add: ["x"] }), {
    code: "permission",
    message: /another user/,
  });
  assert.deepEqual(
    (await repository.list()).snapshots.map(({ snapshot_id: id }) => id),
    [first, second],
  );
});
