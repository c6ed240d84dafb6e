import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import type { Client, ViewLease } from "../../src/contract/index.ts";
import { cairn } from "../fixtures/command.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { cairnLibrary, clientOf, newFolder } from "../fixtures/work.ts";
import { chosenPasses, killAt, passesOf } from "./rounds.ts";

interface Scene {
  client: Client;
  folder: string;
  /** the older of two points, with nothing but a view to protect it */
  point: string;
  /** state digest of a view of it, as it comes out: read-only modes */
  wanted: string;
}

async function scene(name: string): Promise<Scene> {
  const folder = newFolder(name);
  makeFirst(folder);
  const client = await clientOf(folder);
  const { save_point_id: point } = await client.save();
  makeSecond(folder);
  await client.save();
  const view = await client.view(point);
  const wanted = walkDigests(view.path).state;
  await client.closeView(view.view_id);
  return { client, folder, point, wanted };
}

/** Every view that is listed is whole and protects its point; nothing is there that is not listed. */
async function checkViews({ client, point, wanted }: Scene, where: string): Promise<ViewLease[]> {
  const { controlDirectory } = client;
  const views = await client.listViews();
  const files = views.flatMap(({ view_id: id }) => [id, `${id}.json`]).toSorted();
  assert.deepEqual(fs.readdirSync(path.join(controlDirectory, "views")).toSorted(), files, where);
  assert.deepEqual(fs.readdirSync(path.join(controlDirectory, "partial")), [], where);
  for (const view of views) assert.equal(walkDigests(view.path).state, wanted, where);
  const { reclaimable_save_points: gone } = await client.previewCleanup({ retention: { keepLast: 1 } });
  assert.deepEqual(gone, views.length === 0 ? [point] : [], `${where}: the point is protected while it is looked at`);
  return views;
}

test("the next command removes what a killed view left, even if the control directory has moved", async () => {
  const root = newFolder("moves");
  const library = await cairnLibrary();
  let place = path.join(root, "0");
  const client = await library.init(place, { selfContained: true });
  fs.writeFileSync(path.join(place, "main/file"), "content");
  const { save_point_id: point } = await client.save();
  const { view_id: id } = await client.view(point);
  for (const [args, failpoint] of [
    [["view", "--close", id], "view.lease-removed"],
    [["view", point], "partial.made"],
    [["view", point], "partial.renamed"],
  ] as const) {
    assert.ok(cairn([...args, "-C", path.join(place, "main")], { failpoint }).killed, failpoint);
    const now = path.join(root, failpoint);
    fs.renameSync(place, now);
    place = now;
    assert.equal(fs.readdirSync(path.join(place, ".cairn/views")).length, 1, failpoint);
    await (await library.open(place)).save();
    for (const name of ["views", "partial"])
      assert.deepEqual(fs.readdirSync(path.join(place, ".cairn", name)), [], `${failpoint}: ${name}`);
  }
});

test("view without a point changes nothing, even if killed at any step", async () => {
  const at = await scene("list");
  const { client, folder, point } = at;
  const { view_id: id } = await client.view(point);
  const names = passesOf(["view", "-C", folder]);
  for (const pass of chosenPasses(names)) killAt(["view", "-C", folder], pass);
  assert.deepEqual(
    (await checkViews(at, "listed")).map((view) => view.view_id),
    [id],
  );
});

test("a view outlives the process that opened it, and can be closed even if its folder was removed", async () => {
  const at = await scene("lease");
  const { client, folder, point } = at;
  const { data } = cairn(["view", point, "-C", folder]);
  const { view_id: id, path: place } = data["view"] as ViewLease;
  assert.deepEqual(
    (await checkViews(at, "its process has ended")).map((view) => view.view_id),
    [id],
  );
  fs.rmSync(place, { recursive: true });
  // Still protected: only who opened it knows whether it is done with.
  await assert.rejects(client.previewCleanup({ only: [point] }), { code: "refused" });
  assert.equal((await client.closeView(id)).view_id, id);
  assert.deepEqual(await checkViews(at, "closed"), []);
});
