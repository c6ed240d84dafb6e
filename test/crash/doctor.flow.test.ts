import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk } from "../fixtures/command.ts";
import { clientOf, newFolder, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, passesOf } from "./rounds.ts";

for (const remembered of [true, false]) {
  const memory = remembered ? "its id is remembered" : "nothing remembers its id";
  test(`doctor --repair gives a damaged point back if an earlier repair was killed and ${memory}`, async () => {
    const folder = newFolder("doctor");
    fs.writeFileSync(path.join(folder, "first"), "only in the first\n".repeat(500));
    const client = await clientOf(folder);
    const first = await client.save();
    fs.rmSync(path.join(folder, "first"));
    const second = await client.save();
    const control = client.controlDirectory;
    const point = path.join(control, "workspaces/main/points/0000000001");
    const damage = (): void => {
      fs.rmSync(path.join(point, "descriptor.damaged"), { force: true });
      fs.writeFileSync(path.join(point, "descriptor.json"), "{}");
      if (!remembered) fs.rmSync(path.join(control, "cache"), { recursive: true, force: true });
    };
    damage();
    const repair = ["doctor", "--repair", "-C", folder];
    const names = passesOf(repair);
    assert.ok(names.includes("doctor.descriptor-kept"), names.join());
    for (const pass of chosenPasses(names)) {
      damage();
      const where = `repair killed at ${pass} (${killAt(repair, pass)})`;
      if (pass % 2 === 0) fs.rmSync(path.join(control, "cache"), { recursive: true, force: true });
      cairnOk(repair);
      const { save_points, damaged } = await client.history();
      assert.deepEqual(damaged, [], where);
      assert.deepEqual(
        save_points.map(({ save_point_id }) => save_point_id),
        [second.save_point_id, first.save_point_id],
        where,
      );
      assert.deepEqual((await client.verifyAll()).problems, [], where);
    }
    resticCheck(client, "at the end");
  });
}
