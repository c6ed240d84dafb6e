import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../errors.ts";
import { removeSnapshots, runSweep } from "./care/remove.ts";
import { assertComplete, PASSWORD, resticCheck, repositoryFor } from "./testing-archive.ts";

/** Saves over and over from a small pool of contents, so that content dies and is wanted again, and compacts; until a sweep came through. */
const WRITER = `
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
const at = (name) => import(new URL(name, ${JSON.stringify(import.meta.url)}).href);
const { LocalStorage } = await at("./storage/local.ts");
const { Repository } = await at("./repository.ts");
const { BlobIndex } = await at("./index/blob-index.ts");
const { compact } = await at("./care/compact.ts");
const { withLock } = await at("./locks.ts");
const { TestArchive } = await at("./testing-archive.ts");
const [folder, who, rounds] = process.argv.slice(1);
const temporary = folder + "/tmp-" + who;
const storage = new LocalStorage(folder + "/store", { temporaryDirectory: temporary });
const repository = await Repository.open(storage, { password: ${JSON.stringify(PASSWORD)} });
const content = (n) => createHash("sha512").update("content " + n).digest();
for (let i = 0; i < Number(rounds) || (i < 20 * rounds && !existsSync(folder + "/swept")); i++) {
  const index = await withLock(repository, { exclusive: false, waitMs: 30000 }, async (lock) => {
    const index = await BlobIndex.load(repository, folder + "/cache");
    const files = {};
    for (let k = 0; k < 4; k++) files["f" + k] = content(Math.floor(Math.random() * 16));
    await lock.recheck();
    await new TestArchive({ repository, temporary }, index).save(files);
    return index;
  });
  if (i % 2 === 0) await compact(repository, index, { trigger: 4 });
}
`;

async function writer(folder: string, who: string, rounds: number): Promise<void> {
  const child = spawn(process.execPath, ["--input-type=module", "-e", WRITER, "--", folder, who, String(rounds)], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const status = await new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
  assert.equal(status, 0);
}

test("concurrent writers, compactions and sweeps lose no content that a snapshot needs", async (t) => {
  const fixture = await repositoryFor(t);
  const { repository, storage } = fixture;
  let busy = true;
  const writers = Promise.all([writer(fixture.folder, "a", 40), writer(fixture.folder, "b", 40)]).finally(() => {
    busy = false;
  });
  try {
    while (busy) {
      const { snapshots } = await repository.listSnapshots();
      const some = snapshots.filter(() => Math.random() < 0.3).map(({ id }) => id);
      try {
        await removeSnapshots(repository, some, { waitMs: 300 });
        const result = await runSweep(repository, {
          cachePath: join(fixture.folder, "cache"),
          roots: async () => [],
          waitMs: 300,
          mayBeEmpty: true,
        });
        if (!result.postponed) writeFileSync(join(fixture.folder, "swept"), "");
      } catch (error) {
        if (!(error instanceof CairnError) || error.code !== "busy") throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  } finally {
    await writers;
  }
  assert.ok(existsSync(join(fixture.folder, "swept")), "no sweep came through");
  for (const cachePath of [join(fixture.folder, "cache"), null]) await assertComplete(repository, cachePath);
  assert.deepEqual(await storage.list("locks"), []);
  resticCheck(fixture.path);
});
