import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { testFolder } from "../keep/testing-folder.ts";

const LARGE = randomBytes(6 * 1024 * 1024);

interface Scene extends Awaited<ReturnType<typeof testFolder>> {
  options: { repository: string; password: string };
  /** bytes that the repository occupies */
  size: () => number;
}

/** A workspace with a large file, backed up to a repository that was made for it. */
async function scene(t: TestContext): Promise<Scene> {
  const at = await testFolder(t);
  writeFileSync(join(at.folder, "large.bin"), LARGE);
  const place = join(at.root, "repository");
  const options = { repository: place, password: "correct horse" };
  await using repository = await at.library.initRepository({ ...options, like: at.folder });
  await at.client.createBackup(repository, { save: true });
  const size = (): number =>
    readdirSync(place, { recursive: true, encoding: "utf8" }).reduce(
      (sum, each) => sum + statSync(join(place, each)).size,
      0,
    );
  return { ...at, options, size };
}

/** What follows is another machine, as far as this user's own files go. */
function moveOn(at: Scene): void {
  process.env["XDG_STATE_HOME"] = join(at.root, "state-elsewhere");
}

test("a large file in two workspaces of one user is stored once in their repository", async (t) => {
  const at = await scene(t);
  const other = join(at.root, "other");
  mkdirSync(other);
  writeFileSync(join(other, "copy.bin"), LARGE);
  const client = await at.library.init(other);
  const before = at.size();
  await using repository = await at.library.openRepository(at.options);
  await client.createBackup(repository, { save: true });
  assert.ok(at.size() - before < 100_000, `${at.size() - before} bytes more`);
});

test("content that a new machine restored is not stored again by its first backup", async (t) => {
  const at = await scene(t);
  moveOn(at);
  const folder = join(at.root, "restored");
  await using repository = await at.library.openRepository(at.options);
  await repository.restore("latest", folder, { prove: false });
  writeFileSync(join(folder, "more"), "more");
  const client = await at.library.init(folder);
  const before = at.size();
  await client.createBackup(repository, { save: true });
  assert.ok(at.size() - before < 100_000, `${at.size() - before} bytes more`);
});

test("a workspace on a new machine is unchanged after restoreBackup", async (t) => {
  const at = await scene(t);
  moveOn(at);
  const folder = join(at.root, "elsewhere");
  mkdirSync(folder);
  await using repository = await at.library.openRepository(at.options);
  const client = await at.library.init(folder);
  const { snapshots } = await repository.list();
  await client.restoreBackup(repository, snapshots[0]!.snapshot_id, { prove: false });
  assert.deepEqual((await client.status()).changes, { added: 0, modified: 0, removed: 0 });
});

test("restore does not replace a chunker polynomial that the machine already uses", async (t) => {
  const at = await scene(t);
  moveOn(at);
  const folder = join(at.root, "restored");
  mkdirSync(join(at.root, "earlier"));
  await at.library.init(join(at.root, "earlier"));
  const own = join(at.root, "state-elsewhere", "cairn", "chunker-polynomial");
  const before = statSync(own).mtimeMs;
  await using repository = await at.library.openRepository(at.options);
  await repository.restore("latest", folder, { prove: false });
  assert.equal(statSync(own).mtimeMs, before);
  assert.equal(statSync(own).mode & 0o777, 0o600);
});
