import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Client } from "../../src/contract/index.ts";
import { removeHeldTree } from "../../src/clones/remove-held.ts";
import { heldPlace, type HeldPlace, type HoldingEngine, treeOf } from "../fixtures/held-place.ts";
import type { LoopKind } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";

/** Of points that are only held a verb seals no other than the one whose content it needs. */

const ENGINES: readonly [LoopKind, HoldingEngine][] = [
  ["btrfs", "btrfs-snapshot"],
  ["xfs", "reflink-copy"],
];

async function sealed(client: Client): Promise<boolean[]> {
  return (await client.history()).save_points.map((each) => each.sealed).toReversed();
}

/** Changes that size and times do not tell, one after the other, each of which is none or one of content. */
function makeUntold({ folder }: HeldPlace): void {
  const same = path.join(folder, "same/kept.txt");
  fs.chmodSync(same, 0o600);
  fs.chmodSync(same, 0o644);
  const { atime, mtime } = fs.statSync(path.join(folder, "moded/time"));
  fs.writeFileSync(path.join(folder, "moded/time"), "TIME\n");
  fs.utimesSync(path.join(folder, "moded/time"), atime, mtime);
  const times = fs.statSync(path.join(folder, "goes/b"));
  fs.writeFileSync(path.join(folder, "copy"), fs.readFileSync(path.join(folder, "goes/b")));
  fs.renameSync(path.join(folder, "copy"), path.join(folder, "goes/b"));
  fs.utimesSync(path.join(folder, "goes/b"), times.atime, times.mtime);
  fs.renameSync(path.join(folder, "was-file"), path.join(folder, "renamed"));
  fs.writeFileSync(path.join(folder, ".cairnignore"), "hidden\n");
  fs.writeFileSync(path.join(folder, "hidden"), "hidden\n");
}

for (const [kind, engine] of ENGINES) {
  test(`status and diff of ${engine} say without a seal what they say with one`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    const ids: string[] = [];
    const save = async (): Promise<void> => void ids.push((await client.save()).save_point_id);
    await save();
    makeUntold(place);
    await save();
    fs.renameSync(path.join(folder, "renamed"), path.join(folder, "was-file"));
    makeSecond(folder);
    await save();
    makeUnsaved(folder);
    const look = async (): Promise<unknown> => {
      const { clean, changes, ignored } = await client.status();
      const pairs = ids.flatMap((a) => [...ids.map((b) => [a, b] as const), [a, null] as const]);
      const diffs: unknown[] = [];
      for (const [a, b] of pairs) diffs.push(await client.diff(a, b));
      return { clean, changes, ignored, diffs };
    };
    const unread = await look();
    assert.deepEqual(await sealed(client), [false, false, false]);
    await client.seal();
    assert.deepEqual(unread, await look());
  });

  test(`a verb that needs the content of a point of ${engine} seals that one alone`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder, volume } = place;
    const ids: string[] = [];
    for (let i = 0; i < 6; i++) {
      fs.writeFileSync(path.join(folder, "turn"), `${i}\n`);
      ids.push((await client.save()).save_point_id);
    }
    const wanted = [false, false, false, false, false, false];
    const seals = async (at: number, work: Promise<unknown>): Promise<void> => {
      await work;
      wanted[at] = true;
      assert.deepEqual(await sealed(client), wanted);
    };
    await seals(4, client.show(ids[4]!, "turn"));
    await seals(1, client.planRestore({ target: ids[1]! }));
    await seals(3, client.verify(ids[3]!));
    const view = await client.view(ids[0]!);
    assert.equal(fs.readFileSync(path.join(view.path, "turn"), "utf8"), "0\n");
    await seals(0, client.closeView(view.view_id));
    await seals(2, client.restore({ target: ids[2]!, to: path.join(volume.root, "to"), paths: ["turn"] }));
    assert.equal(fs.readFileSync(path.join(volume.root, "to/turn"), "utf8"), "2\n");
  });

  test(`status and diff of ${engine} refuse a tree that is gone`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    const a = await client.save();
    makeSecond(folder);
    const b = await client.save();
    await removeHeldTree(treeOf(client, 2));
    await assert.rejects(client.status(), { code: "damaged" });
    await assert.rejects(client.diff(a.save_point_id, b.save_point_id), { code: "damaged" });
    assert.deepEqual(await sealed(client), [false, false]);
  });
}
