import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { acquireLock } from "../../src/fs/lock.ts";
import { cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { btrfsPlace, heldPlace, type HeldPlace, treeOf } from "../fixtures/held-place.ts";
import { makeFirst } from "../fixtures/two-states.ts";

/** `verify --all` where points are only held: it reads them as well, or says which it did not read. */

interface Unverified {
  point: string;
  workspace_name: string;
  detail: string;
}

function unverifiedIn({ data }: Outcome): Unverified[] {
  return data["unverified"] as Unverified[];
}

/** A second workspace in the control directory with two points that are not sealed. */
async function withFork({ client, volume, folder }: HeldPlace): Promise<{ fork: string; ids: string[] }> {
  await client.save();
  const fork = path.join(volume.root, "fork");
  cairnOk(["-C", folder, "fork", "head", fork]);
  const ids = ["2", "3"].map((text) => {
    fs.writeFileSync(path.join(fork, "file"), text);
    return (cairnOk(["-C", fork, "save"]).data["save_point"] as { save_point_id: string }).save_point_id;
  });
  return { fork, ids };
}

void describe("verify --all of points that are only held", () => {
  test("verify --all reads unsealed points of other workspaces, and changes none of their folders", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { fork } = await withFork(place);
    fs.writeFileSync(path.join(fork, "file"), "not saved");
    const { status, data, warnings } = cairn(["-C", place.folder, "verify", "--all"]);
    assert.deepEqual([status, warnings, data["problems"], data["unverified"]], [0, [], [], []]);
    assert.equal((data["checked"] as { points: number }).points, 4);
    assert.equal(fs.readFileSync(path.join(fork, "file"), "utf8"), "not saved");
  });

  test("verify --all lists the points of a locked workspace as unverified, and exits 10", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { fork, ids } = await withFork(place);
    const control = place.client.controlDirectory;
    using lock = await acquireLock(path.join(control, "workspaces/fork/lock"), { purpose: "test" });
    const done = cairn(["-C", place.folder, "verify", "--all", "--lock-timeout", "0s"]);
    assert.equal(done.status, 10);
    assert.equal(done.warnings.length, 1, done.warnings.join("\n"));
    assert.deepEqual(done.data["problems"], []);
    assert.ok((done.data["checked"] as { points: number }).points > 0);
    // The first point of the fork is a clone too.
    const all = cairnOk(["-C", fork, "history"]).data["save_points"] as { save_point_id: string }[];
    assert.deepEqual(
      unverifiedIn(done).map(({ point, workspace_name: name }) => [point, name]),
      all.map(({ save_point_id: id }) => [id, "fork"]),
    );
    assert.equal(all.length, ids.length + 1);
    lock.release();
    // From any workspace it is the same question.
    cairnOk(["-C", fork, "verify", "--all"]);
  });

  test("verify --all reads the points of a released workspace", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { fork } = await withFork(place);
    cairnOk(["release", fork]);
    const { data } = cairnOk(["-C", place.folder, "verify", "--all"]);
    assert.equal((data["checked"] as { points: number }).points, 4);
  });

  test("verify --all lists a point as unverified if its file system is read-only", async (t) => {
    const place = await heldPlace(t, { kind: "xfs", engine: "reflink-copy", fill: makeFirst });
    if (place === null) return;
    const { save_point_id: id } = await place.client.save();
    await place.client.close();
    const { root } = place.volume;
    execFileSync("mount", ["-o", "remount,ro", root]);
    try {
      const done = cairn(["-C", place.folder, "verify", "--all"]);
      assert.equal(done.status, 10, done.stderr);
      const [found] = unverifiedIn(done);
      assert.equal(found?.point, id);
      assert.match(found!.detail, /read-only file system/);
    } finally {
      execFileSync("mount", ["-o", "remount,rw", root]);
    }
  });
});

test("doctor names cleanup as the way out for a point whose tree is missing, and offers no repair", async (t) => {
  const place = await btrfsPlace(t, makeFirst);
  if (place === null) return;
  const { client, folder } = place;
  const ids: string[] = [];
  for (const text of ["1", "2", "3"]) {
    fs.writeFileSync(path.join(folder, "file"), text);
    ids.push((await client.save()).save_point_id);
  }
  execFileSync("btrfs", ["-q", "subvolume", "delete", treeOf(client, 2)]);
  assert.equal(cairn(["-C", folder, "verify", "--all"]).status, 6);
  for (const args of [["doctor"], ["doctor", "--repair"], ["doctor"]]) {
    const { status, data } = cairn(["-C", folder, ...args]);
    assert.equal(status, 6);
    const damage = (
      data["findings"] as { severity: string; detail: string; repair?: string; repaired?: boolean }[]
    ).filter(({ severity }) => severity === "damage");
    assert.equal(damage.length, 1, JSON.stringify(damage));
    assert.deepEqual([damage[0]!.repair, damage[0]!.repaired], [undefined, undefined]);
    assert.ok(damage[0]!.detail.includes(`cairn cleanup drop ${ids[1]!.slice(0, 8)}`), damage[0]!.detail);
  }
  cairnOk(["-C", folder, "cleanup", "drop", ids[1]!.slice(0, 8)]);
  assert.deepEqual(cairnOk(["-C", folder, "doctor"]).data["findings"], []);
});
