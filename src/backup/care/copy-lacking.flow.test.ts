import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { backupScene, type BackupScene, damageBlob, nodeAt, packWith, SCHEMES } from "../testing-far.ts";

for (const [what, spoil] of [
  ["has lost a pack", async (at: BackupScene, id: string): Promise<void> => rmSync(await packWith(at, id))],
  ["has cut a pack", async (at: BackupScene, id: string): Promise<void> => truncateSync(await packWith(at, id), 1000)],
  ["has damaged content", damageBlob],
] as const)
  for (const scheme of SCHEMES)
    test(`copyTo from a ${scheme} repository that ${what} copies the intact snapshots and names the others`, async (t) => {
      const at = await backupScene(t, scheme);
      const { client, repository, library, folder, root, options } = at;
      const first = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
      writeFileSync(join(folder, "large"), randomBytes(300_000));
      const second = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
      rmSync(join(folder, "large"));
      at.write("deep/later.txt", "later\n");
      const third = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
      await spoil(at, (await nodeAt(repository, second, `${folder}/large`)).content![0]!);
      const other = { ...options, repository: `local:${root}/other`, password: "other" };
      const target = await library.initRepository(other);
      if (what !== "has damaged content") {
        const planned = await repository.copyTo(target, { dryRun: true });
        assert.deepEqual([planned.copied.length, planned.not_copied.map(({ snapshot_id: id }) => id)], [2, [second]]);
      }
      const result = await repository.copyTo(target);
      assert.deepEqual(
        [result.copied.map(({ snapshot_id: id }) => id), result.not_copied.map(({ snapshot_id: id }) => id)],
        [[first, third], [second]],
      );
      const { problems, checked } = await target.verify();
      assert.deepEqual([problems, checked.snapshots, checked.digests], [[], 2, 2]);
      await target.restore("latest", join(root, "copied"));
      assert.equal(walkDigests(join(root, "copied")).state, walkDigests(folder).state);
      const again = await repository.copyTo(target);
      assert.deepEqual([again.copied, again.present, again.not_copied.length], [[], 2, 1]);
      assert.equal((await target.list()).snapshots.length, 2);
      await target.close();
      const empty = await library.initRepository({ ...other, repository: `local:${root}/empty` });
      await assert.rejects(repository.copyTo(empty, { snapshots: [second] }), hasCode("damaged"));
      assert.equal((await empty.list()).snapshots.length, 0);
      await empty.close();
    });
