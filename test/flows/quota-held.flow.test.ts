import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { hasCode } from "../../src/keep/testing-folder.ts";
import { type HeldPlace, heldPlace } from "../fixtures/held-place.ts";

/** The quota where points hold whole trees, and what they have comes into the store when they are sealed. */

const CONTENT = 300_000;

async function saveNew({ client, folder }: HeldPlace, warnings: string[] = []): Promise<string> {
  fs.writeFileSync(path.join(folder, "own"), randomBytes(CONTENT));
  return (await client.save({ onWarning: (message) => void warnings.push(message) })).save_point_id;
}

async function ids({ client }: HeldPlace): Promise<string[]> {
  return (await client.history(undefined, 0, { all: true })).save_points.map(({ save_point_id: id }) => id);
}

for (const [kind, engine] of [
  ["btrfs", "btrfs-snapshot"],
  ["xfs", "reflink-copy"],
] as const) {
  const place = async (t: TestContext): Promise<HeldPlace | null> => {
    const at = await heldPlace(t, { kind, engine });
    // So that the quota is not met by how little lies on the file system.
    if (at !== null) fs.writeFileSync(path.join(at.volume.root, "of others"), randomBytes(4 << 20), { flush: true });
    await at?.client.setPolicy({ quotaBytes: CONTENT + CONTENT / 2 });
    return at;
  };

  test(`save is refused if the sealed points reach the quota, and seal still works: ${engine}`, async (t) => {
    const at = await place(t);
    if (at === null) return;
    const { client, folder } = at;
    const first = await saveNew(at);
    await client.seal();
    const second = await saveNew(at);
    const third = await saveNew(at);
    assert.equal((await client.seal()).sealed, 2);
    await assert.rejects(saveNew(at), (error: Error & { hint?: string }) => {
      assert.match(`${error.message}; ${error.hint}`, /the quota of .* cleanup policy --quota/);
      return hasCode("no_space")(error);
    });
    assert.deepEqual(await ids(at), [third, second, first]);
    await client.restore({ target: first });
    await client.undo();
    assert.equal(fs.statSync(path.join(folder, "own")).size, CONTENT);
    await client.setPolicy({ quotaBytes: 100 * CONTENT });
    await saveNew(at);
  });

  // A clone is as old as its file system says, whatever the clock is taken for.
  if (engine === "btrfs-snapshot")
    test(`save at the quota removes points by the policy and warns: ${engine}`, async (t) => {
      t.mock.timers.enable({ apis: ["Date"], now: Date.now() - 30 * 86_400_000 });
      const at = await place(t);
      if (at === null) return;
      await saveNew(at);
      const second = await saveNew(at);
      await at.client.seal();
      t.mock.timers.reset();
      await at.client.setPolicy({ retention: { keepLast: 1 } });
      const warnings: string[] = [];
      const third = await saveNew(at, warnings);
      assert.deepEqual(await ids(at), [third, second]);
      assert.match(warnings.join("\n"), /quota .* 1 point/);
    });

  test(`save succeeds with a warning if the store cannot be measured for the quota: ${engine}`, async (t) => {
    const at = await place(t);
    if (at === null) return;
    await saveNew(at);
    const config = path.join(at.client.controlDirectory, "store/config");
    fs.renameSync(config, `${config}.away`);
    fs.rmSync(path.join(at.client.controlDirectory, "cache"), { recursive: true });
    const warnings: string[] = [];
    await saveNew(at, warnings);
    assert.match(warnings.join("\n"), /the quota was not checked/);
  });
}
