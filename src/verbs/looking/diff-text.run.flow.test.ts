import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { testFolder } from "../../keep/testing-folder.ts";

test("diffText compares the lines of a file between two points, or between a point and the folder", async (t) => {
  const { folder, client } = await testFolder(t, { "a.txt": "one\ntwo\nthree\n" });
  const put = (name: string, content: string | Uint8Array): void => writeFileSync(path.join(folder, name), content);
  put("b.bin", Buffer.from([0, 1, 2]));
  const first = await client.save();
  put("a.txt", "one\n2\nthree\n");
  put("b.bin", Buffer.from([0, 1, 3]));
  put("new.txt", "new\n");
  const second = await client.save();
  rmSync(path.join(folder, "a.txt"));

  const changed = await client.diffText("a.txt", first.save_point_id, second.save_point_id, { context: 0 });
  assert.equal(changed.kind, "text");
  assert.deepEqual(changed.hunks, [
    { old_start: 2, old_lines: 1, new_start: 2, new_lines: 1, section: "one", lines: ["-two", "+2"] },
  ]);
  assert.equal((await client.diffText("a.txt", first.save_point_id, first.save_point_id)).kind, "same");

  const binary = await client.diffText("b.bin", first.save_point_id, second.save_point_id);
  assert.equal(binary.kind, "binary");
  assert.notEqual(binary.before!.sha256, binary.after!.sha256);
  assert.equal(binary.after!.size, 3);

  const added = await client.diffText("new.txt", first.save_point_id, second.save_point_id);
  assert.equal(added.before, null);
  assert.deepEqual(added.hunks[0]!.lines, ["+new"]);

  const removed = await client.diffText("a.txt", second.save_point_id);
  assert.equal(removed.to, null);
  assert.equal(removed.after, null);
  assert.deepEqual(removed.hunks[0]!.lines, ["-one", "-2", "-three"]);

  await assert.rejects(client.diffText("none.txt", first.save_point_id, null), { code: "not_found" });
});
