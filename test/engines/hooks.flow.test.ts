import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { CairnError } from "../../src/errors.ts";
import { type HeldKind, heldPlace, type HoldingEngine } from "../fixtures/held-place.ts";

const PLACES: readonly [HeldKind, HoldingEngine][] = [
  ["xfs", "reflink-copy"],
  ["btrfs", "btrfs-snapshot"],
];
for (const [kind, engine] of PLACES) {
  test(`a point by ${engine} has the files of the command before the save, unsealed and sealed`, async (t) => {
    const fill = (folder: string): void => fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
    const place = await heldPlace(t, { kind, engine, fill });
    if (place === null) return;
    const { client, folder, volume } = place;
    await client.setHooks({ beforeSave: 'echo one > "$CAIRN_DUMPS/a"' });
    const { save_point_id: target, effective_engine } = await client.save();
    assert.equal(effective_engine, engine);
    assert.deepEqual(fs.readdirSync(folder), ["letter"]);
    const [held, sealed] = ["held", "sealed"].map((name) => path.join(volume.root, name)) as [string, string];
    await client.fork(target, held);
    await client.seal();
    await client.restore({ target, to: sealed });
    for (const back of [held, sealed]) {
      assert.deepEqual(fs.readdirSync(back).toSorted(), [".cairn-dumps", "letter"]);
      assert.equal(fs.readFileSync(path.join(back, ".cairn-dumps/a"), "utf8"), "one\n");
    }
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test(`a folder on ${kind} with an own entry .cairn-dumps gets no point with dumps, and its points have no other name`, async (t) => {
    const fill = (folder: string): void => {
      fs.mkdirSync(path.join(folder, ".cairn-dumps"));
      fs.writeFileSync(path.join(folder, ".cairn-dumps/mine"), "mine");
    };
    const place = await heldPlace(t, { kind, engine, fill });
    if (place === null) return;
    const { client, folder, volume } = place;
    await client.setHooks({ beforeSave: 'echo one > "$CAIRN_DUMPS/a"' });
    await assert.rejects(client.save(), ({ code, message }: CairnError) => {
      assert.equal(code, "refused");
      return message.includes(`${folder}/.cairn-dumps exists`);
    });
    assert.deepEqual([fs.readdirSync(folder), (await client.history()).save_points], [[".cairn-dumps"], []]);
    const { save_point_id: target } = await client.save({ hooks: false });
    const held = path.join(volume.root, "held");
    await client.fork(target, held);
    assert.deepEqual(fs.readdirSync(held), [".cairn-dumps"]);
    fs.renameSync(path.join(folder, ".cairn-dumps"), path.join(folder, "mine"));
    const next = path.join(volume.root, "next");
    await client.fork((await client.save()).save_point_id, next);
    assert.deepEqual(fs.readdirSync(next).toSorted(), [".cairn-dumps", "mine"]);
    assert.deepEqual(fs.readdirSync(path.join(next, ".cairn-dumps")), ["a"]);
  });
}
