import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { SavePoint } from "../../src/contract/index.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { type HeldKind, type HoldingEngine, heldPlace, heldVolume, makeHoldable } from "../fixtures/held-place.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { makeFirst } from "../fixtures/two-states.ts";

/** Saves that make no point where nothing changed, of folders whose trees are held. */

const HOLDERS: [HoldingEngine, HeldKind][] = [
  ["btrfs-snapshot", "btrfs"],
  ["reflink-copy", "xfs"],
];

for (const [engine, kind] of HOLDERS)
  test(`save --skip-unchanged by ${engine} makes a point of a changed folder, and none of an unchanged folder`, async (t) => {
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
    let newest = third;
    const kept = fs.statSync(file);
    const large = path.join(folder, "same/large");
    const writeLarge = (text: string): void => {
      fs.writeFileSync(large, text.repeat(700_000));
      fs.utimesSync(large, kept.atime, new Date(1_600_000_000_000));
    };
    const changes: Record<string, () => void> = {
      "a large file": () => writeLarge("x"),
      "other content of a large one with the size and time that were": () => writeLarge("y"),
      "a mode": () => fs.chmodSync(file, 0o600),
      "a new file": () => fs.writeFileSync(path.join(folder, "same/new"), ""),
      "one that is gone": () => fs.rmSync(path.join(folder, "same/new")),
      "other content of that size": () => {
        fs.writeFileSync(file, "x".repeat(kept.size));
        fs.utimesSync(file, kept.atime, new Date(1_600_000_000_000));
      },
      "other content of the size and time that were": () => {
        fs.writeFileSync(file, "y".repeat(kept.size));
        fs.utimesSync(file, kept.atime, new Date(1_600_000_000_000));
      },
    };
    for (const [what, change] of Object.entries(changes)) {
      await client.seal();
      change();
      const id = await save(what);
      assert.notEqual(id, newest, what);
      newest = id;
    }
    await client.seal();
    fs.writeFileSync(file, "y".repeat(kept.size));
    fs.utimesSync(file, kept.atime, new Date(1_600_000_000_000));
    assert.equal(await save("the same was written"), newest);
    const other = await client.save({ skipUnchanged: true, exclude: ["left-out"] });
    assert.notEqual(other.save_point_id, newest, "by other rules");
    assert.deepEqual((await client.verifyAll()).problems, []);
    const { save_points: points } = await client.history();
    assert.equal(points.length, 4 + Object.keys(changes).length);
  });

test("save --skip-unchanged --reread reads every file, and makes no second point of an unchanged folder", async (t) => {
  const place = await heldPlace(t, { engine: "btrfs-snapshot", kind: "btrfs", fill: makeFirst });
  if (place === null) return;
  const { client } = place;
  const first = await client.save({ skipUnchanged: true, reread: true });
  assert.equal(first.effective_engine, "copy");
  const again = await client.save({ skipUnchanged: true, reread: true });
  assert.equal(again.save_point_id, first.save_point_id);
  assert.ok(again.read_bytes > 0);
});

test("save --skip-unchanged makes a point and warns if the store of the head point cannot be read", async (t) => {
  const place = await heldPlace(t, { engine: "btrfs-snapshot", kind: "btrfs", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  const { save_point_id: first } = await client.save();
  await client.seal();
  fs.appendFileSync(path.join(folder, "same/kept.txt"), "changed");
  const config = path.join(client.controlDirectory, "store/config");
  fs.renameSync(config, `${config}-away`);
  const warnings: string[] = [];
  const again = await client.save({ skipUnchanged: true, onWarning: (message) => warnings.push(message) });
  fs.renameSync(`${config}-away`, config);
  assert.notEqual(again.save_point_id, first);
  assert.equal(again.effective_engine, "btrfs-snapshot");
  assert.match(warnings.join("\n"), /could not find out if the folder has changed/);
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("save --skip-unchanged makes a point if its user could not read all files of the head point", (t) => {
  const why = whyNoOrdinaryUser();
  if (why !== null) return t.skip(why);
  const volume = heldVolume(t, "btrfs");
  if (volume === null) return;
  const user = installForOrdinaryUser();
  t.after(() => user.remove());
  const folder = path.join(volume.root, "ws");
  const secret = path.join(folder, "secret");
  makeHoldable(folder, "btrfs-snapshot");
  for (const each of [volume.root, folder]) fs.chownSync(each, ORDINARY_USER, ORDINARY_USER);
  fs.writeFileSync(secret, "first", { mode: 0o600 });
  const options = user.optionsIn(folder);
  const save = (): SavePoint => cairnOk(["save", "--skip-unchanged"], options).data["save_point"] as SavePoint;
  const first = save();
  cairn(["seal"], options);
  fs.writeFileSync(secret, "second", { mode: 0o600 });
  const second = save();
  assert.notEqual(second.save_point_id, first.save_point_id);
  assert.equal(second.effective_engine, "btrfs-snapshot");
});
