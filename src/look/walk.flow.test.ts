import assert from "node:assert/strict";
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { backupScene, damagePack, SCHEMES } from "../backup/testing-far.ts";
import type { ListedEntry } from "../contract/index.ts";
import { hasCode } from "../keep/testing-folder.ts";

async function all(entries: AsyncIterable<ListedEntry>): Promise<ListedEntry[]> {
  const listed: ListedEntry[] = [];
  for await (const entry of entries) listed.push(entry);
  return listed;
}

for (const scheme of SCHEMES)
  test(`walk lists all entries of a point and of its ${scheme === "far" ? "remote" : "local"} snapshot, folders before their entries`, async (t) => {
    const { client, repository, folder, place } = await backupScene(t, scheme);
    mkdirSync(join(folder, "deep/er/est"), { recursive: true });
    mkdirSync(join(folder, "empty"));
    writeFileSync(join(folder, "deep/er/est/bottom"), "");
    symlinkSync("b.txt", join(folder, "deep/link"));
    writeFileSync(Buffer.concat([Buffer.from(`${folder}/deep/`), Buffer.from([0x6e, 0xff])]), "odd");
    await client.createBackup(repository, { save: true });
    const many = readdirSync(join(folder, "many")).map((name) => `many/${name}`);
    const deep = ["deep/b.txt", "deep/er", "deep/er/est", "deep/er/est/bottom", "deep/link", "deep/n\\xff"];
    const entries = await all(repository.walk("latest"));
    assert.deepEqual(
      entries.map(({ path }) => path),
      ["a.txt", "deep", ...deep, "empty", "many", ...many.toSorted()],
    );
    assert.deepEqual(await all(client.walk("head")), entries);
    for (const path of ["deep", "./deep/"]) {
      const below = await all(repository.walk("latest", path));
      assert.deepEqual(
        below.map((entry) => entry.path),
        deep,
      );
      assert.deepEqual(await all(client.walk("head", path)), below);
    }
    assert.deepEqual(
      await all(repository.walk("latest", "deep/link")),
      (await repository.show("latest", "deep/link")).entries,
    );
    assert.deepEqual(await all(client.walk("head", "deep/link")), (await client.show("head", "deep/link")).entries);
    for await (const _ of repository.walk("latest")) break;
    for await (const _ of client.walk("head")) break;
    for (const walk of [repository.walk("latest", "absent"), client.walk("head", "absent")])
      await assert.rejects(all(walk), hasCode("not_found"));
    const stop = new AbortController();
    stop.abort();
    await assert.rejects(all(client.walk("head", "", { signal: stop.signal })), hasCode("interrupted"));
    assert.deepEqual(readdirSync(join(place, "locks")), []);
  });

test("walk fails with damaged if a tree is damaged", async (t) => {
  const { client, repository, place } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  damagePack(place, (size) => size >> 1, "smallest");
  await assert.rejects(all(repository.walk("latest")), hasCode("damaged"));
});
