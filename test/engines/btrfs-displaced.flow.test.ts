import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import type { Client } from "../../src/contract/index.ts";
import type { SavePoint } from "../../src/contract/words.ts";
import { decodeDescriptorFile, encodeDescriptorFile } from "../../src/workspace/points/point-files.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, btrfsPlace, type HeldPlace, treeOf } from "../fixtures/held-place.ts";
import { makeFirst, makeUnsaved } from "../fixtures/two-states.ts";
import { firstOf } from "../fixtures/long.ts";

/** What a restore by exchange displaced: all of it is in the undo point, whatever ignore files lie there. */

const EXCHANGE = { method: "exchange" } as const;

interface Displacing extends HeldPlace {
  /** a point without ignore rules, to go back to */
  target: SavePoint;
  /** what its user has in the folder that ignore rules hide */
  hidden: string;
}

/** A folder that got an ignore file, and what that hides, after a point of it was sealed. */
async function begin(t: TestContext): Promise<Displacing | null> {
  const place = await btrfsPlace(t, makeFirst);
  if (place === null) return null;
  const target = await place.client.save({ message: "without ignore file" });
  await place.client.seal();
  const { folder } = place;
  fs.writeFileSync(path.join(folder, ".cairnignore"), "hidden/\n");
  fs.mkdirSync(path.join(folder, "hidden"));
  const hidden = path.join(folder, "hidden/kept");
  fs.writeFileSync(hidden, "precious\n");
  return { ...place, target, hidden };
}

async function pointOf(client: Client, id: string): Promise<SavePoint> {
  return (await client.history(undefined, 0, { all: true })).save_points.find((each) => each.save_point_id === id)!;
}

/** As a version wrote it that took ignore files of what was displaced for rules of the point. */
function writeAsBefore(client: Client, sequence: number): void {
  const file = path.join(path.dirname(treeOf(client, sequence)), "descriptor.json");
  const descriptor = decodeDescriptorFile(fs.readFileSync(file));
  assert.equal(descriptor.undo, true);
  fs.writeFileSync(file, encodeDescriptorFile({ ...descriptor, rules: { ...descriptor.rules, ignore_file: true } }));
}

void describe("folders that a restore by exchange displaced", () => {
  for (const saved of firstOf(["is in no point", "is head", "is head, which is sealed"] as const, 2))
    for (const method of ["exchange", "entries"] as const)
      for (const earlier of method === "entries" ? firstOf([true, false], 1) : [false]) {
        const of = earlier ? ", its undo point being of an earlier version" : "";
        test(`undo by ${method} brings back files that an ignore file hides if the displaced folder ${saved}${of}`, async (t) => {
          const place = await begin(t);
          if (place === null) return;
          const { client, folder, target, hidden } = place;
          const isHead = saved !== "is in no point";
          if (!isHead) makeUnsaved(folder);
          // Before the save, as it changes the times of access.
          const before = readFolder(folder);
          if (isHead) await client.save();
          if (saved === "is head, which is sealed") await client.seal();
          const restored = await client.restore({ target: target.save_point_id, ...EXCHANGE });
          assert.deepEqual([restored.method, fs.existsSync(hidden)], ["exchange", false]);
          const { sequence } = await pointOf(client, restored.undo_id!);
          if (earlier) writeAsBefore(client, sequence);
          await client.seal();
          assert.deepEqual((await client.undo({ method })).method, method);
          assertFolder(folder, before, "undone");
          assert.deepEqual((await client.status()).changes, { added: 0, modified: 0, removed: 0 });
          assert.deepEqual((await client.diff("head")).entries, []);
          await client.redo(EXCHANGE);
          assert.equal(fs.existsSync(hidden), false);
          // Of what the store has, the held tree being gone.
          const to = path.join(place.volume.root, "to");
          await client.restore({ target: restored.undo_id!, to });
          assertFolder(to, before, "elsewhere");
          fs.rmSync(to, { recursive: true });
          assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
          await client.close();
          assertHeldTidy(place, "after all");
        });
      }

  test("a restore of an undo point brings back ignored files, whether the undo point is sealed or not", async (t) => {
    const place = await begin(t);
    if (place === null) return;
    const { client, folder, target, hidden } = place;
    const before = readFolder(folder);
    const { undo_id: undo } = await client.restore({ target: target.save_point_id, ...EXCHANGE });
    for (const isSealed of [false, true]) {
      if (isSealed) await client.seal();
      assert.equal((await client.restore({ target: undo!, ...EXCHANGE })).method, "exchange");
      assertFolder(folder, before, `sealed: ${isSealed}`);
      fs.writeFileSync(hidden, "of no point\n");
    }
    assert.equal((await pointOf(client, undo!)).payload_root_hash === null, false);
  });

  test("a restore keeps ignored files if the ignore file came back with an exchange that was undone", async (t) => {
    const place = await begin(t);
    if (place === null) return;
    const { client, folder, target } = place;
    const hidden = path.join(folder, "goes/deep/hidden");
    fs.writeFileSync(path.join(folder, "goes/deep/.cairnignore"), "hidden\n");
    fs.rmSync(path.join(folder, ".cairnignore"));
    // So many that the last is not written together with the ignore file.
    for (let i = 0; i < 1000; i++) fs.writeFileSync(path.join(folder, `same/${i}`), "");
    await client.restore({ target: target.save_point_id, ...EXCHANGE });
    await client.seal();
    assert.equal((await client.undo(EXCHANGE)).method, "exchange");
    fs.appendFileSync(path.join(folder, "same/999"), "more\n");
    const next = await client.save();
    fs.writeFileSync(hidden, "of no point\n");
    assert.equal((await client.restore({ target: next.save_point_id, ...EXCHANGE })).method, "entries");
    assert.equal(fs.readFileSync(hidden, "utf8"), "of no point\n");
  });

  test("a seal keeps ignored files of an undo point, and leaves them out of the points after it", async (t) => {
    const place = await begin(t);
    if (place === null) return;
    const { client, target, hidden } = place;
    const { undo_id: undo } = await client.restore({ target: target.save_point_id, ...EXCHANGE });
    await client.undo(EXCHANGE);
    await client.seal();
    const next = await client.save();
    assert.deepEqual([next.changes, next.unchanged], [null, false]);
    const again = await client.save();
    await client.seal();
    const [all, ...others] = await Promise.all(
      [undo!, next.save_point_id, again.save_point_id].map(async (id) => (await pointOf(client, id)).entries!),
    );
    assert.deepEqual(others, [all! - 2, all! - 2]);
    assert.equal((await client.status()).clean, true);
    fs.writeFileSync(hidden, "of no point\n");
    await client.restore({ target: next.save_point_id });
    assert.equal(fs.readFileSync(hidden, "utf8"), "of no point\n");
    assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
  });
});
