import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { backupScene } from "../backup/testing-far.ts";
import { hasCode } from "../keep/testing-folder.ts";
import { ownPointsOnly } from "../workspace/open/siblings.ts";

for (const scheme of ["local", "far"] as const)
  describe(`a backup in a ${scheme} repository, looked at from its folder`, () => {
    test("lists a page of a folder in the requested order, and gives it as an archive", async (t) => {
      const { client, repository } = await backupScene(t, scheme);
      const { snapshot } = await client.createBackup(repository, { save: true });
      const id = snapshot!.snapshot_id;
      const found = await client.showBackup("latest", "many", { repository, sort: "size", reverse: true, limit: 2 });
      assert.deepEqual([found.snapshot.snapshot_id, found.kind], [id, "directory"]);
      assert.deepEqual(
        found.entries.map(({ path }) => path),
        ["many/49", "many/48"],
      );
      const archiveOf = async (target: string, path: string): Promise<Buffer> => {
        const pieces: Uint8Array[] = [];
        for await (const piece of client.read(target, path, { repository, archive: "tar" })) pieces.push(piece);
        return Buffer.concat(pieces);
      };
      const archive = await archiveOf("latest", "deep");
      assert.ok((await archiveOf("backup:latest", "deep")).equals(archive));
      assert.ok((await archiveOf("backup:latest:deep", "")).equals(archive));
      await assert.rejects(archiveOf("backup:latest", "nowhere"), hasCode("not_found"));
      await ownPointsOnly.run(true, async () => {
        await assert.rejects(client.showBackup("latest", "", { repository }), hasCode("permission"));
        await assert.rejects(archiveOf("backup:latest", "deep"), hasCode("permission"));
      });
    });
  });
