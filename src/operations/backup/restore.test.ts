import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../engines/testing-walk.ts";
import type { BackupRepository } from "../contract.ts";
import { backupScene } from "./testing-far.ts";

interface Nodes {
  nodes: { name: string; subtree?: string; content?: string[] }[];
}

interface Index {
  packs: { id: string; blobs: { id: string; offset: number }[] }[];
}

/** The blob of a snapshot's manifest. */
async function manifestBlob(repository: BackupRepository): Promise<string> {
  const snapshot = (await repository.cat("snapshot", "latest")).content as { tree: string };
  const top = (await repository.cat("tree", snapshot.tree)).content as Nodes;
  const own = top.nodes.find(({ name }) => name === ".cairn")!.subtree!;
  return ((await repository.cat("tree", own)).content as Nodes).nodes[0]!.content![0]!;
}

test("a manifest that is damaged keeps nothing but the proof from being restored", async (t) => {
  const { client, repository, folder, root, place } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  const blob = await manifestBlob(repository);
  const [index] = readdirSync(join(place, "index"));
  const { packs } = (await repository.cat("index", index)).content as Index;
  const pack = packs.find(({ blobs }) => blobs.some(({ id }) => id === blob))!;
  const file = join(place, "data", pack.id.slice(0, 2), pack.id);
  const bytes = readFileSync(file);
  const at = pack.blobs.find(({ id }) => id === blob)!.offset + 20;
  bytes[at] = bytes[at]! ^ 1;
  writeFileSync(file, bytes);
  const target = join(root, "restored");
  const { left_out, proof } = await repository.restore("latest", target);
  assert.deepEqual(
    left_out.map(({ path, reason }) => [path, reason]),
    [["", "damaged"]],
  );
  assert.equal(proof, null);
  assert.equal(walkDigests(target).state, walkDigests(folder).state);
});
