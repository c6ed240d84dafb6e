import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { type TestFolder, testFolder } from "../../keep/testing-folder.ts";
import { EmbeddedStore } from "../store/embedded-store.ts";
import { type ObjectId, objectIdOf } from "../../ids.ts";
import { decodeDescriptorFile, encodeDescriptorFile } from "../points/point-files.ts";

/** Two points of a workspace; the second has no `only-first`. */
async function saved(t: TestContext): Promise<TestFolder & { ids: string[] }> {
  const scene = await testFolder(t, { "only-first": "first\n".repeat(300), "both/file": "both\n".repeat(300) });
  const first = await scene.client.save();
  fs.rmSync(path.join(scene.folder, "only-first"));
  scene.write("new", "second\n".repeat(300));
  const second = await scene.client.save();
  return { ...scene, ids: [first.save_point_id, second.save_point_id] };
}

async function flipContent({ client }: TestFolder, content: string): Promise<void> {
  const store = await EmbeddedStore.open(client.controlDirectory);
  const place = store.index.place(store.index.lookup(createHash("sha256").update(content).digest(), 0));
  const file = store.storage.localPath("data", objectIdOf(place.pack));
  store.close();
  fs.chmodSync(file, 0o600);
  const bytes = fs.readFileSync(file);
  bytes[place.offset + 20]! ^= 1;
  fs.writeFileSync(file, bytes);
}

function descriptorOf({ client }: TestFolder, sequence: number): string {
  const name = String(sequence).padStart(10, "0");
  return path.join(client.controlDirectory, "workspaces/main/points", name, "descriptor.json");
}

void describe("verify of a save point", () => {
  test("verify finds no problem in a healthy point, counts its files and records the result", async (t) => {
    const scene = await saved(t);
    assert.equal((await scene.client.resolve("head")).integrity_state, "unverified");
    const result = await scene.client.verify("head");
    assert.deepEqual(result, {
      checked: { points: 1, files: 2, bytes: 5 * 300 + 7 * 300 },
      problems: [],
      rows: [],
      unverified: [],
    });
    assert.equal((await scene.client.resolve("head")).integrity_state, "verified");
    assert.deepEqual((await scene.client.verifyAll()).problems, []);
    assert.equal((await scene.client.resolve(scene.ids[0]!)).integrity_state, "verified");
  });

  test("verify reports a damaged file only for the point that contains the file", async (t) => {
    const scene = await saved(t);
    await flipContent(scene, "first\n".repeat(300));
    assert.deepEqual((await scene.client.verify("head")).problems, []);
    const { problems } = await scene.client.verify(scene.ids[0]!);
    const of = problems.filter((problem) => problem.point !== null);
    assert.deepEqual(
      of.map(({ point, kind, path: where }) => [point, kind, where]),
      [[scene.ids[0], "content", "only-first"]],
    );
    assert.equal((await scene.client.resolve(scene.ids[0]!)).integrity_state, "damaged");
    assert.equal((await scene.client.resolve("head")).integrity_state, "verified");
  });

  test("verify --all reports the problems of all points, not only those of the first damaged point", async (t) => {
    const scene = await saved(t);
    await flipContent(scene, "both\n".repeat(300));
    fs.writeFileSync(descriptorOf(scene, 1), "{}");
    const { problems, checked } = await scene.client.verifyAll();
    assert.equal(checked.points, 1);
    assert.deepEqual(
      problems
        .map(({ point, kind, path: where }) => [point, kind, where ?? null])
        .toSorted((a, b) => String(a[1]).localeCompare(String(b[1]))),
      [
        [scene.ids[1], "content", "both/file"],
        [scene.ids[0], "descriptor", null],
        [null, "pack", null],
        // The snapshot of the point whose descriptor is gone belongs to nothing any more.
        [null, "content", null],
      ].toSorted((a, b) => String(a[1]).localeCompare(String(b[1]))),
    );
  });

  test("verify reports a damaged descriptor as a problem of its point", async (t) => {
    const scene = await saved(t);
    const file = descriptorOf(scene, 1);
    fs.writeFileSync(file, fs.readFileSync(file).subarray(0, 100));
    const { problems } = await scene.client.verify(scene.ids[0]!);
    assert.deepEqual(
      problems.map((problem) => problem.kind),
      ["descriptor"],
    );
  });

  test("verify finds a descriptor whose digest is not that of its content", async (t) => {
    const scene = await saved(t);
    const file = descriptorOf(scene, 2);
    const descriptor = decodeDescriptorFile(fs.readFileSync(file));
    fs.writeFileSync(file, encodeDescriptorFile({ ...descriptor, state_digest: "0".repeat(64) as ObjectId }));
    const { problems } = await scene.client.verify("head");
    assert.deepEqual(
      problems.map((problem) => problem.kind),
      ["digest", "manifest"],
    );
  });

  test("verify --all finds no problem in points whose snapshots are missing", async (t) => {
    const scene = await saved(t);
    const snapshots = path.join(scene.client.controlDirectory, "store/snapshots");
    for (const name of fs.readdirSync(snapshots)) fs.rmSync(path.join(snapshots, name));
    assert.deepEqual((await scene.client.verifyAll()).problems, []);
  });

  test("verify --all reports damaged snapshots and damaged index files", async (t) => {
    const scene = await saved(t);
    const folder = path.join(scene.client.controlDirectory, "store");
    for (const kind of ["snapshots", "index"]) {
      const file = path.join(folder, kind, fs.readdirSync(path.join(folder, kind))[0]!);
      fs.chmodSync(file, 0o600);
      fs.writeFileSync(file, "nonsense");
    }
    const kinds = new Set((await scene.client.verifyAll()).problems.map((problem) => problem.kind));
    assert.ok(kinds.has("index") && kinds.has("snapshot"), [...kinds].join());
  });

  test("verify --all reports a damaged or missing state file", async (t) => {
    const { client } = await saved(t);
    const state = path.join(client.controlDirectory, "workspaces/main/state.json");
    for (const spoil of [() => fs.writeFileSync(state, "{"), () => fs.rmSync(state)]) {
      spoil();
      const { problems, checked } = await client.verifyAll();
      assert.deepEqual([problems.map(({ kind }) => kind), checked.points], [["workspace"], 2]);
    }
    await client.doctor({ repair: true });
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test("verify reports a problem of the store if the store's config is missing", async (t) => {
    const scene = await saved(t);
    fs.rmSync(path.join(scene.client.controlDirectory, "store/config"));
    assert.deepEqual(
      (await scene.client.verify("head")).problems.map((problem) => problem.kind),
      ["store"],
    );
  });
});
