import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { type HeldKind, type HoldingEngine, heldPlace } from "../fixtures/held-place.ts";
import { makeFirst } from "../fixtures/two-states.ts";

/** Saves that make no point where nothing changed, of folders whose trees are held. */

const HOLDERS: [HoldingEngine, HeldKind][] = [
  ["btrfs-snapshot", "btrfs"],
  ["reflink-copy", "xfs"],
];

for (const [engine, kind] of HOLDERS)
  test(`a save by ${engine} that skips what is unchanged holds the folder where it has changed, and makes no point where not`, async (t) => {
    const place = await heldPlace(t, { engine, kind, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    const file = path.join(folder, "same/kept.txt");
    const save = async (context: string): Promise<string> => {
      const { save_point_id: id, effective_engine: by, degraded } = await client.save({ skipUnchanged: true });
      assert.deepEqual([by, degraded], [engine, []], context);
      return id;
    };
    const first = await save("the first");
    assert.equal(await save("nothing was done"), first);
    fs.appendFileSync(file, "changed");
    const second = await save("after a change");
    assert.notEqual(second, first);
    await client.seal();
    execFileSync("touch", ["-a", file]);
    assert.equal(await save("a file was only read"), second);
    fs.appendFileSync(file, "again");
    const third = await save("after a change of what was sealed");
    assert.notEqual(third, second);
    assert.equal(await save("nothing was done after it"), third);
    fs.writeFileSync(path.join(folder, "left-out"), "");
    const other = await client.save({ skipUnchanged: true, exclude: ["left-out"] });
    assert.notEqual(other.save_point_id, third, "by other rules");
    assert.deepEqual((await client.verifyAll()).problems, []);
    const { save_points: points } = await client.history();
    assert.equal(points.length, 4);
  });

test("a save that skips what is unchanged and reads every file makes a point of what it read", async (t) => {
  const place = await heldPlace(t, { engine: "btrfs-snapshot", kind: "btrfs", fill: makeFirst });
  if (place === null) return;
  const { client } = place;
  const first = await client.save({ skipUnchanged: true, reread: true });
  assert.equal(first.effective_engine, "copy");
  const again = await client.save({ skipUnchanged: true, reread: true });
  assert.equal(again.save_point_id, first.save_point_id);
  assert.ok(again.read_bytes > 0);
});
