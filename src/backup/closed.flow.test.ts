import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { openLibrary } from "../compose.ts";
import type { RepositoryOptions } from "../contract/index.ts";

/** A repository that is closed while calls are under way. */

function place(t: TestContext): RepositoryOptions {
  const folder = mkdtempSync(join(tmpdir(), "cairn-closed-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const env = { HOME: folder, XDG_CACHE_HOME: join(folder, "cache") };
  return { repository: join(folder, "repository"), password: "correct horse", env };
}

test("createFromStream completes its snapshot although its repository is closed meanwhile", async (t) => {
  const options = place(t);
  const repository = await (await openLibrary()).initRepository(options);
  async function* closing(): AsyncGenerator<Uint8Array> {
    yield randomBytes(3 << 20);
    await repository.close();
    yield randomBytes(3 << 20);
  }
  assert.ok((await repository.createFromStream(closing())).snapshot !== null);
  assert.deepEqual(readdirSync(join(options.repository, "tmp")), []);
});
