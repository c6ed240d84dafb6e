import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../engines/testing-walk.ts";
import { resticCheck } from "../../repository/test-archive.ts";
import { backupScene, spoil, storedTwice } from "./testing-far.ts";

for (const scheme of ["local", "far"] as const) {
  for (const number of [0, 1])
    test(`a prune of a ${scheme} repository frees no sound copy for a damaged one where set ${number} is spoilt`, async (t) => {
      const at = await backupScene(t, scheme);
      const { repository, place, root, folder } = at;
      writeFileSync(join(folder, "random"), randomBytes(300_000));
      spoil([largest((await storedTwice(at))[number]!)], "first blob");
      const planned = await repository.prune({ dryRun: true });
      const { bytes_freed, damaged_packs } = await repository.prune();
      assert.ok(bytes_freed > 300_000 && planned.bytes_freed > 300_000, String(bytes_freed));
      assert.deepEqual(damaged_packs, []);
      const restored = await repository.restore("latest", join(root, "to"));
      assert.equal(restored.proof?.state_digest, walkDigests(folder).state);
      await repository.repair({ what: "packs" });
      assert.deepEqual((await repository.verify()).problems, []);
      resticCheck(place);
    });

  test(`a prune of a ${scheme} repository leaves copies that are all damaged, and says so`, async (t) => {
    const at = await backupScene(t, scheme);
    writeFileSync(join(at.folder, "random"), randomBytes(300_000));
    const packs = (await storedTwice(at)).map(largest);
    spoil(packs, "all blobs");
    const { bytes_freed, damaged_packs } = await at.repository.prune();
    assert.ok(bytes_freed < 300_000);
    assert.deepEqual(damaged_packs.toSorted(), packs.map((pack) => basename(pack)).toSorted());
    assert.ok(packs.every((pack) => existsSync(pack)));
  });
}

function largest(files: readonly string[]): string {
  return files.toSorted((a, b) => statSync(a).size - statSync(b).size).at(-1)!;
}
