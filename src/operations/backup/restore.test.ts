import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../engines/testing-walk.ts";
import { backupScene, damageBlob, nodeAt } from "./testing-far.ts";

test("a manifest that is damaged keeps nothing but the proof from being restored", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, folder, root } = at;
  await client.createBackup(repository, { save: true });
  await damageBlob(at, (await nodeAt(repository, "latest", "/.cairn/manifest.json")).content![0]!);
  const target = join(root, "restored");
  const { left_out, proof } = await repository.restore("latest", target);
  assert.deepEqual(
    left_out.map(({ path, reason }) => [path, reason]),
    [["", "damaged"]],
  );
  assert.equal(proof, null);
  assert.equal(walkDigests(target).state, walkDigests(folder).state);
});
