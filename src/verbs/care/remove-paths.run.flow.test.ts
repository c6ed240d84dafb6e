import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { verifyReceipt } from "../../backup/restore/receipt.ts";
import { backupScene } from "../../backup/testing-far.ts";
import type { Client, SavePoint } from "../../contract/index.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { hasCode, testFolder } from "../../keep/testing-folder.ts";

const SECRET = "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYzEXAMPLEKEY\n";

async function allPoints(client: Client): Promise<SavePoint[]> {
  return (await client.history(undefined, 0, { all: true })).save_points;
}

async function namesWith(client: Client, name: string): Promise<string[]> {
  return (await client.findNames(name, { all: true })).found.map(({ path }) => path);
}

/** Names of the store's packs with data, oldest first. */
function packsOf({ controlDirectory }: Client): string[] {
  const data = join(controlDirectory, "store/data");
  const packs = fs.readdirSync(data, { recursive: true, encoding: "utf8" }).map((name) => join(data, name));
  return packs.filter((name) => fs.statSync(name).isFile());
}

test("removePaths refuses a point with a lost manifest before anything changes, and saves go on", async (t) => {
  const { client, write } = await testFolder(t, { secret: SECRET, kept: "1" });
  await client.save();
  const before = new Set(packsOf(client));
  write("kept", "2");
  await client.save();
  const added = packsOf(client).filter((pack) => !before.has(pack));
  write("kept", "3");
  await client.save();
  // One pack has the trees; without the other the manifest is lost.
  const sizes = new Map(added.map((pack) => [fs.statSync(pack).size, pack]));
  fs.rmSync(sizes.get(Math.min(...sizes.keys()))!);
  await assert.rejects(client.removePaths({ paths: ["secret"] }), hasCode("damaged"));
  assert.equal(fs.globSync("**/removed-paths.json", { cwd: client.controlDirectory }).length, 0);
  write("kept", "4");
  assert.equal((await client.save()).unchanged, false);
});

test("removePaths removes a path from every point, and the points keep their ids, numbers and other content", async (t) => {
  const { client, folder, write, root } = await testFolder(t, { ".env": SECRET, "deep/er/.env": SECRET, kept: "1" });
  // Cut into several pieces, with holes, and under two names.
  fs.writeFileSync(join(folder, "large"), randomBytes(3 << 20));
  fs.writeFileSync(join(folder, "deep/large.env"), randomBytes(3 << 20));
  fs.truncateSync(join(folder, "large"), 64 << 20);
  fs.linkSync(join(folder, "kept"), join(folder, "deep/linked"));
  await client.save();
  await client.pin("head");
  write("kept", "2");
  await client.save();
  write("kept", "never saved");
  await client.restore({ target: "head~1" });
  await client.fork("head", join(root, "fork"));
  const before = await allPoints(client);
  const planned = await client.removePaths({ paths: [".env", "deep/large*"], dryRun: true });
  assert.deepEqual([planned.dry_run, planned.point_count], [true, 4]);
  assert.deepEqual(
    planned.points[0]!.paths.map(({ path }) => path),
    [".env", "deep/er/.env", "deep/large.env"],
  );
  assert.deepEqual(await allPoints(client), before);
  const done = await client.removePaths({ paths: [".env", "deep/large*"] });
  assert.deepEqual([done.point_count, done.complete, done.same_content], [4, true, []]);
  assert.ok(done.bytes_freed > 3 << 20, String(done.bytes_freed));
  assert.deepEqual(await namesWith(client, ".env"), []);
  const after = await allPoints(client);
  assert.deepEqual(
    after.map(({ save_point_id: id, sequence, message, pinned }) => [id, sequence, message, pinned]),
    before.map(({ save_point_id: id, sequence, message, pinned }) => [id, sequence, message, pinned]),
  );
  for (const [
    at,
    { save_point_id: id, payload_root_hash: digest, rewritten, entries, bytes, labels },
  ] of after.entries()) {
    const old = before[at]!;
    assert.deepEqual(
      rewritten!.map((each) => [each.digest_before, each.paths.length]),
      [[old.payload_root_hash, 3]],
    );
    assert.equal(entries, old.entries! - 3);
    assert.equal(bytes, old.bytes! - 2 * SECRET.length - (3 << 20));
    assert.deepEqual(labels, []);
    const target = join(root, id);
    await client.restore({ target: id, to: target });
    assert.equal(walkDigests(target).state, digest);
    assert.equal(
      fs.readFileSync(join(target, "deep/linked"), "latin1"),
      fs.readFileSync(join(target, "kept"), "latin1"),
    );
    assert.deepEqual(fs.readdirSync(join(target, "deep/er")), []);
  }
  assert.deepEqual((await client.verifyAll()).problems, []);
  assert.equal((await client.doctor()).healthy, true);
  // A second removal is recorded beside the first one.
  await client.removePaths({ paths: ["deep"] });
  assert.deepEqual(
    (await allPoints(client)).map(({ rewritten }) => rewritten!.length),
    [2, 2, 2],
  );
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("removePaths names other paths with the same content, removed paths in the folder, and databases", async (t) => {
  const warnings: string[] = [];
  const { client, folder } = await testFolder(t, { ".env": SECRET, "copy of env": SECRET });
  const database = new DatabaseSync(join(folder, "app.db"));
  database.exec("CREATE TABLE t (a); INSERT INTO t VALUES ('secret')");
  database.close();
  await client.save();
  const done = await client.removePaths({ paths: [".env"], onWarning: (message) => void warnings.push(message) });
  assert.deepEqual(done.same_content, [{ path: "copy of env" }]);
  assert.deepEqual(done.in_folders, [{ path: ".env", workspace_name: "main" }]);
  assert.deepEqual(done.databases, ["app.db"]);
  for (const said of [/copy of env/, /\.cairnignore/, /rows inside SQLite databases are out of reach/])
    assert.ok(
      warnings.some((each) => said.test(each)),
      `${said}: ${warnings.join("\n")}`,
    );
  assert.equal(fs.readFileSync(join(folder, ".env"), "utf8"), SECRET);
  fs.mkdirSync(join(folder, "deep/er"), { recursive: true });
  for (const name of ["deep/er/.env", "deep/other"]) fs.writeFileSync(join(folder, name), SECRET);
  await client.save();
  fs.writeFileSync(join(folder, ".cairnignore"), "/.env\n");
  fs.writeFileSync(join(folder, "deep/.cairnignore"), "er/\n");
  const { in_folders: again } = await client.removePaths({ paths: [".env", "deep/other"] });
  assert.deepEqual(again, [{ path: "deep/other", workspace_name: "main" }], "the next save leaves the others out");
  const none = await client.removePaths({ paths: [".env"] });
  assert.deepEqual([none.point_count, none.complete], [0, true]);
});

test("removePaths fails while a view shows a removed path, and for patterns that match everything", async (t) => {
  const { client } = await testFolder(t, { ".env": SECRET });
  await client.save();
  const { view_id: view } = await client.view("head");
  await assert.rejects(client.removePaths({ paths: [".env"] }), hasCode("refused"));
  assert.deepEqual(await namesWith(client, ".env"), [".env"]);
  await client.closeView(view);
  await assert.rejects(client.removePaths({ paths: [] }), hasCode("usage"));
  await assert.rejects(client.removePaths({ paths: ["/"] }), hasCode("usage"));
  await assert.rejects(client.removePaths({ paths: ["[x"] }), hasCode("usage"));
  assert.equal((await client.removePaths({ paths: [".env"] })).point_count, 1);
});

test("verifyReceipt lists the paths that removePaths removed from the point after the receipt", async (t) => {
  const { client, repository, folder, root } = await backupScene(t, "local");
  fs.writeFileSync(join(folder, ".env"), SECRET);
  await client.createBackup(repository, { save: true });
  const receipt = join(root, "receipt.json");
  await repository.restore("latest", join(root, "restored"), { receipt });
  assert.equal((await verifyReceipt(receipt, {})).rewritten, null);
  const done = await client.removePaths({ paths: [".env"] });
  assert.equal(done.repositories.length, 1);
  assert.match(done.repositories[0]!.command, /^cairn backup rewrite -r \S+ --exclude \.env --forget$/);
  const { rewritten, trusted } = await verifyReceipt(receipt, {});
  assert.deepEqual([trusted, rewritten?.paths], [true, [{ path: ".env" }]]);
  // The next backup has the point as it is now.
  await client.createBackup(repository, { save: true });
  assert.deepEqual((await client.verifyAll()).problems, []);
});
