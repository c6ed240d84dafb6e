import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { type HeldKind, heldPlace, type HoldingEngine } from "../fixtures/held-place.ts";

const PLACES: readonly [HeldKind, HoldingEngine][] = [
  ["xfs", "reflink-copy"],
  ["btrfs", "btrfs-snapshot"],
];
for (const [kind, engine] of PLACES)
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
