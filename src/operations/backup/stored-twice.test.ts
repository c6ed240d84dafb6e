import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../engines/testing-walk.ts";
import { backupScene, type BackupScene, storedTwice, whileSpoilt } from "./testing-far.ts";

const WAYS = ["first blob", "all blobs", "lost"] as const;

/** Each of two sets of packs spoilt in turn, whichever the index has chosen. */
async function spoilt(at: BackupScene, work: (name: string) => Promise<void>): Promise<void> {
  const sets = await storedTwice(at);
  for (const [number, files] of sets.entries())
    for (const how of WAYS) await whileSpoilt(files, how, async () => work(`${how} ${number}`));
}

for (const scheme of ["local", "far"] as const) {
  test(`a restore from a ${scheme} repository reads what is damaged or lost where another pack has it too`, async (t) => {
    const at = await backupScene(t, scheme);
    const { repository, folder, root } = at;
    at.write("large", "0123456789abcdefg".repeat(1 << 20));
    const warnings: string[] = [];
    const onWarning = (message: string): void => void warnings.push(message);
    await spoilt(at, async (name) => {
      const { proof, left_out, kept_bytes } = await repository.restore("latest", join(root, name), { onWarning });
      assert.deepEqual([left_out, proof?.state_digest, kept_bytes], [[], walkDigests(folder).state, 0], name);
      const some = { paths: [`${folder}/deep`], onWarning };
      assert.deepEqual((await repository.restore("latest", join(root, `${name} some`), some)).left_out, []);
      assert.equal(readFileSync(join(root, `${name} some`, "deep/b.txt"), "utf8"), "b\n");
      let read = "";
      for await (const piece of repository.read("latest", `${folder}/deep/b.txt`, { onWarning }))
        read += Buffer.from(piece).toString();
      assert.equal(read, "b\n", name);
    });
    assert.match(warnings[0]!, /is damaged or missing: what is needed of it is read from other packs/);
  });
}
