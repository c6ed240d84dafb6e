import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

test("a view is a read-only copy that keeps its point from cleanups until it is closed", async (context) => {
  const { client, folder, write } = await testFolder(context, { "a.txt": "a", "sub/run": "#!/bin/sh\n", private: "p" });
  fs.chmodSync(join(folder, "sub/run"), 0o4750);
  fs.chmodSync(join(folder, "private"), 0o200);
  const first = await client.save();
  write("a.txt", "second");
  await client.save();
  const view = await client.view(first.save_point_id);
  assert.equal(view.save_point_id, first.save_point_id);
  assert.equal(view.method, "copy");
  assert.ok(view.path.startsWith(client.controlDirectory));
  assert.equal(fs.readFileSync(join(view.path, "a.txt"), "utf8"), "a");
  const modeOf = (path: string): number => fs.statSync(join(view.path, path)).mode & 0o7777;
  assert.deepEqual(["", "a.txt", "sub", "sub/run", "private"].map(modeOf), [0o555, 0o444, 0o555, 0o554, 0o444]);
  assert.deepEqual(await client.listViews(), [view]);
  const retention = { keepLast: 1 };
  assert.deepEqual((await client.previewCleanup({ retention })).reclaimable_save_points, []);
  await assert.rejects(client.previewCleanup({ only: [first.save_point_id] }), hasCode("refused"));
  assert.deepEqual(await client.closeView(view.view_id), view);
  assert.deepEqual(fs.readdirSync(join(client.controlDirectory, "views")), []);
  assert.deepEqual(await client.listViews(), []);
  assert.deepEqual((await client.previewCleanup({ retention })).reclaimable_save_points, [first.save_point_id]);
  await assert.rejects(client.closeView(view.view_id), hasCode("not_found"));
  await assert.rejects(client.closeView("../../etc"), hasCode("invalid_id"));
});

test("listViews and closeView use a view's new path after the control directory was moved", async (context) => {
  const { library, root } = await testFolder(context);
  const [old, now] = [join(root, "old"), join(root, "now")];
  const client = await library.init(old, { selfContained: true });
  fs.writeFileSync(join(old, "main/a.txt"), "a");
  await client.save();
  const { view_id: id } = await client.view("head");
  fs.renameSync(old, now);
  const moved = await library.open(now);
  const [view] = await moved.listViews();
  assert.deepEqual([view?.view_id, view?.path], [id, join(now, ".cairn/views", id)]);
  assert.equal(fs.readFileSync(join(view!.path, "a.txt"), "utf8"), "a");
  assert.deepEqual(await moved.closeView(id), view);
});
