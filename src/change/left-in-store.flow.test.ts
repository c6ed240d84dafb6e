import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { CleanupOptions, CleanupResult, Client, SavePoint } from "../contract/index.ts";
import { type TestFolder, testFolder } from "../keep/testing-folder.ts";

/** What removals have to leave in the store, and who takes it out. */

const ENTRY = fileURLToPath(new URL("../cli/program/entry.ts", import.meta.url));
const SECRET = "a secret that is in no other file";
const SECRET_ID = createHash("sha256").update(SECRET).digest("hex");

interface WithSecret extends TestFolder {
  /** The point that has it. */
  bad: SavePoint;
}

/** A folder that has the secret no more; the pack that has it has much else that is needed. */
async function withSecret(t: TestContext): Promise<WithSecret> {
  const at = await testFolder(t, { "d/secret": SECRET });
  for (let n = 0; n < 60; n++) fs.writeFileSync(join(at.folder, "d", `kept-${n}`), randomBytes(10_000));
  const bad = await at.client.save();
  fs.rmSync(join(at.folder, "d/secret"));
  await at.client.save();
  return { ...at, bad };
}

/** Whether restic finds the secret in the store; what is expected, where there is no restic. */
async function hasSecret({ client }: { client: Client }, expected: boolean): Promise<boolean> {
  const { repository, password_file } = await client.store();
  const done = spawnSync("restic", ["-r", repository, "-p", password_file, "--no-cache", "cat", "blob", SECRET_ID]);
  return done.error === undefined ? done.status === 0 : expected;
}

/** Has every file system say that so many bytes are free. Returns what ends that. */
function withFree(t: TestContext, bytes: number): () => void {
  const { statfsSync } = fs;
  const mocked = t.mock.method(fs, "statfsSync", (place: fs.PathLike) => {
    const facts = statfsSync(place);
    return Object.assign(facts, { bavail: Math.floor(bytes / facts.bsize) });
  });
  syncBuiltinESMExports();
  const restore = (): void => {
    mocked.mock.restore();
    syncBuiltinESMExports();
  };
  t.after(restore);
  return restore;
}

async function run(
  client: Client,
  options: CleanupOptions = {},
): Promise<Pick<CleanupResult, "bytes_freed" | "complete"> & { warnings: string[] }> {
  const warnings: string[] = [];
  const { bytes_freed, complete } = await client.runCleanup({
    ...options,
    onWarning: (message) => void (/ other points? still ha(?:s|ve) /.test(message) || warnings.push(message)),
  });
  return { bytes_freed, complete, warnings };
}

function notesIn({ controlDirectory }: Client): string[] {
  const place = join(controlDirectory, "unfreed");
  return fs.existsSync(place) ? fs.readdirSync(place) : [];
}

test("a cleanup with --only removes the content from the store if there is space for the copies", async (t) => {
  const at = await withSecret(t);
  const { client, bad } = at;
  withFree(t, 4 << 20);
  const { complete, warnings } = await run(client, { only: [bad.save_point_id] });
  assert.deepEqual([complete, warnings, notesIn(client)], [true, [], []]);
  assert.equal(await hasSecret(at, false), false);
});

test("a cleanup with --only reports content that stays for lack of space, and the next cleanup removes it", async (t) => {
  const at = await withSecret(t);
  const { client, bad } = at;
  const plan = await client.previewCleanup({ only: [bad.save_point_id] });
  assert.equal(plan.removals_pending, false);
  const roomAgain = withFree(t, 100_000);
  const first = await run(client, { only: [bad.save_point_id] });
  assert.equal(first.complete, false);
  assert.match(first.warnings.join("\n"), /^content of .* is still in the store.* needs .*, and only .* are free/);
  assert.equal(await hasSecret(at, true), true);
  // No more room yet: told again, and noted once.
  const second = await client.previewCleanup();
  assert.deepEqual([second.removals_pending, second.reclaimable_save_points], [true, []]);
  const still = await run(client);
  assert.deepEqual([still.complete, still.warnings, notesIn(client).length], [false, first.warnings, 1]);
  const { findings, healthy } = await client.doctor();
  assert.deepEqual([findings.map(({ kind }) => kind), healthy], [["leftovers"], true]);
  roomAgain();
  // By rules that leave a share of waste otherwise.
  const last = await run(client, { retention: { keepLast: 1 } });
  assert.deepEqual([last.complete, last.warnings, notesIn(client)], [true, [], []]);
  assert.ok(last.bytes_freed > 0);
  assert.equal(await hasSecret(at, false), false);
  assert.equal((await client.previewCleanup()).removals_pending, false);
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("a cleanup by rules reports content that it could not free for lack of space, and the next cleanup frees it", async (t) => {
  const at = await testFolder(t, { d: "" });
  const { client, folder } = at;
  fs.rmSync(join(folder, "d"));
  fs.mkdirSync(join(folder, "d"));
  for (let n = 0; n < 60; n++) fs.writeFileSync(join(folder, "d", `${n}`), randomBytes(10_000));
  await client.save();
  for (let n = 0; n < 20; n++) fs.rmSync(join(folder, "d", `${n}`));
  await client.save();
  const roomAgain = withFree(t, 100_000);
  const first = await run(client, { retention: { keepLast: 1 } });
  assert.deepEqual([first.complete, first.bytes_freed < 100_000], [true, true]);
  assert.match(first.warnings.join("\n"), /^the store still has 19\d KiB of unused data, .*: cairn cleanup$/);
  const pending = await client.previewCleanup();
  assert.equal(pending.removals_pending, true);
  roomAgain();
  const last = await run(client);
  assert.ok(last.bytes_freed > 190_000, String(last.bytes_freed));
  assert.deepEqual([last.complete, last.warnings, notesIn(client)], [true, [], []]);
});

test("the next cleanup of another workspace removes content of points that a killed release deleted", async (t) => {
  const at = await withSecret(t);
  const { client, folder, library, root } = at;
  const other = join(root, "other");
  fs.mkdirSync(other);
  fs.writeFileSync(join(other, "b"), "two");
  const second = await library.init(other, { controlDirectory: client.controlDirectory });
  await second.save();
  for (const failpoint of ["release.unfreed-noted", "release.workspace-renamed"]) {
    const env = { ...process.env, CAIRN_FAILPOINT: failpoint };
    const args = [ENTRY, "release", folder, "--delete-points"];
    assert.equal(spawnSync(process.execPath, args, { env, encoding: "utf8" }).signal, "SIGKILL", failpoint);
    const plan = await second.previewCleanup();
    assert.equal(plan.removals_pending, true, failpoint);
    const { complete, warnings } = await run(second);
    assert.deepEqual([complete, warnings, notesIn(second)], [true, [], []], failpoint);
    const isThere = failpoint === "release.unfreed-noted";
    assert.equal(await hasSecret({ client: second }, isThere), isThere, failpoint);
    const snapshots = fs.readdirSync(join(second.controlDirectory, "store/snapshots"));
    assert.equal(snapshots.length, isThere ? 3 : 1, failpoint);
    assert.deepEqual((await second.verifyAll()).problems, [], failpoint);
  }
});

test("a release writes its note again if another workspace's cleanup deleted it before the points were removed", async (t) => {
  const { client, library, root } = await testFolder(t, { a: "one" });
  await client.save();
  const other = join(root, "other");
  fs.mkdirSync(other);
  const second = await library.init(other, { controlDirectory: client.controlDirectory });
  const at = (name: string): string => join(client.controlDirectory, name);
  const { renameSync } = fs;
  const mocked = t.mock.method(fs, "renameSync", (from: fs.PathLike, to: fs.PathLike) => {
    renameSync(from, to);
    if (!String(from).endsWith("workspaces/main")) return;
    for (const name of fs.readdirSync(at("unfreed"))) fs.rmSync(join(at("unfreed"), name));
    // Nothing can be freed then, as after a kill.
    renameSync(at("store/data"), at("store/data.away"));
  });
  syncBuiltinESMExports();
  const warnings: string[] = [];
  await client.release({ deletePoints: true, onWarning: (message) => void warnings.push(message) });
  mocked.mock.restore();
  syncBuiltinESMExports();
  assert.match(warnings.join("\n"), /their space could not be freed/);
  assert.equal(notesIn(second).length, 1);
  fs.renameSync(at("store/data.away"), at("store/data"));
  await run(second);
  assert.deepEqual([notesIn(second), fs.readdirSync(at("store/snapshots"))], [[], []]);
});
