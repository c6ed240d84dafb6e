import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, heldPlace } from "../fixtures/held-place.ts";
import { makeFirst } from "../fixtures/two-states.ts";

for (const [kind, engine] of [
  ["xfs", "reflink-copy"],
  ["btrfs", "btrfs-snapshot"],
] as const) {
  test(`${engine}: restore --method exchange works for a point after cleanup purge --path removed a file from it`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    fs.mkdirSync(path.join(folder, "closed"));
    for (const name of [".env", "closed/.env"]) fs.writeFileSync(path.join(folder, name), randomBytes(64));
    fs.writeFileSync(path.join(folder, "closed/kept"), "kept");
    fs.chmodSync(path.join(folder, "closed"), 0o555);
    const { save_point_id: id } = await client.save();
    const first = readFolder(folder);
    fs.writeFileSync(path.join(folder, "closed/kept"), "changed");
    await client.save();
    const { data } = cairnOk(["cleanup", "purge", "--path", ".env", "-C", folder]);
    assert.equal(data["point_count"], 2);
    assertHeldTidy(place, "removed");
    cairnOk(["restore", id, "--method", "exchange", "-C", folder]);
    for (const name of [".env", "closed/.env"]) first.delete(name);
    assertFolder(folder, first, "restored");
    assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
    // The undo point of the restore has what was in the folder.
    assert.equal(cairnOk(["cleanup", "purge", "--path", ".env", "-C", folder]).data["point_count"], 1);
    cairnOk(["save", "-C", folder]);
    assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
    assert.equal(cairn(["doctor", "-C", folder]).status, 0);
  });
}

/** Without what lets root read everything. */
const LESSER = [
  "setpriv",
  ...["--bounding-set", "--inh-caps"].map((each) => `${each}=-dac_override,-dac_read_search`),
  "--",
];

test("cleanup purge --path removes a file that only a clone has, if the user can read the file", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  const secret = randomBytes(64);
  const closed = path.join(folder, "closed");
  fs.writeFileSync(closed, secret, { mode: 0o600 });
  fs.chownSync(closed, 4711, 4711);
  await client.save();
  cairnOk(["seal", folder], { prefix: LESSER });
  // As a shell completes it.
  const args = ["cleanup", "purge", "--path", closed, "-C", folder];
  const refused = cairn(args, { prefix: LESSER });
  assert.deepEqual([refused.status, refused.error?.code], [9, "permission"], refused.stdout);
  assert.equal(cairnOk(args).data["point_count"], 1);
  assert.equal(cairnOk(args).data["point_count"], 0);
  assertHeldTidy(place, "removed");
  assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
});
