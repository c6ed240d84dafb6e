import assert from "node:assert/strict";
import { lstatSync, linkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../test/fixtures/loop-file-system.ts";
import type { CairnError } from "../errors.ts";
import { testFolder } from "../keep/testing-folder.ts";

const MIB = 2 ** 20;

test("a sparse file larger than the disk is saved, restored and backed up, as holes need no space", async (t) => {
  const disk = loopFileSystem(t, "ext4", { size: 64 * MIB });
  if (disk === null) return;
  const { client, library, folder, root, write } = await testFolder(t);
  write("disk.img", "start");
  truncateSync(join(folder, "disk.img"), 256 * MIB);
  await client.save();
  const at = (name: string): string => join(disk.root, name);
  await client.restore({ target: "head", to: at("copy") });
  await client.fork("head", at("fork"));
  const repository = await library.initRepository({ repository: join(root, "repository"), password: "p" });
  await client.createBackup(repository);
  await repository.restore("latest", at("back"), { prove: false });
  for (const name of ["copy", "fork", "back"]) {
    const { size, blocks } = lstatSync(at(`${name}/disk.img`));
    assert.equal(size, 256 * MIB, name);
    assert.ok(blocks * 512 < MIB, `${name} takes ${blocks} blocks`);
  }
});

test("a restore into another folder fails with no_space if space seems short, unless the guard space is allowed", async (t) => {
  const disk = loopFileSystem(t, "ext4", { size: 64 * MIB });
  if (disk === null) return;
  const { client, folder } = await testFolder(t);
  writeFileSync(join(folder, "a"), Buffer.alloc(10 * MIB, 1));
  for (let i = 0; i < 10; i++) linkSync(join(folder, "a"), join(folder, `a${i}`));
  await client.save();
  const to = join(disk.root, "copy");
  await assert.rejects(client.restore({ target: "head", to }), (error: CairnError) => {
    assert.match(error.hint ?? "", /--allow space/);
    return error.code === "no_space";
  });
  await client.restore({ target: "head", to, allow: ["space"] });
  assert.equal(lstatSync(join(to, "a9")).nlink, 11);
});
