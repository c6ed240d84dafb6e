import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { zstdCompressSync } from "node:zlib";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { openLibrary } from "../../compose.ts";
import type { BackupRepository } from "../../contract/index.ts";
import { randomFrom, setAttribute } from "../../workspace/store/testing-edits.ts";
import { rightsCount, runWithoutCapabilities } from "../../workspace/store/testing-rights.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { backupScene, damageBlob, nodeAt, packWith, SCHEMES } from "../testing-far.ts";
import { makeRepository } from "../testing-repository.ts";
import { PAGED } from "../../formats/payloads/sqlite-pages.ts";
import { firstOf } from "../../../test/fixtures/long.ts";

const FIRST = PAGED.from;

/** A workspace with a database that is large as far as this test goes. */
async function databaseScene(t: TestContext, scheme: "local" | "far" = "local") {
  PAGED.from = 0;
  t.after(() => (PAGED.from = FIRST));
  const scene = await backupScene(t, scheme);
  mkdirSync(join(scene.folder, "data"));
  const file = join(scene.folder, "data", "app.db");
  const change = (work: (database: DatabaseSync) => void): void => {
    const database = new DatabaseSync(file);
    work(database);
    database.close();
  };
  change((database) => {
    database.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB)");
    const insert = database.prepare("INSERT INTO t VALUES (?, ?)");
    for (let id = 0; id < 400; id++) insert.run(id, randomBytes(3000));
  });
  const update = (ids: number[]): void =>
    change((database) => {
      const row = database.prepare("UPDATE t SET content = ? WHERE id = ?");
      for (const id of ids) row.run(randomBytes(3000), id);
    });
  return { ...scene, file, change, update };
}

for (const scheme of SCHEMES)
  test(`a database on a ${scheme} storage is stored as its changed pages and restored byte by byte`, async (t) => {
    const { client, repository, root, folder, file, update } = await databaseScene(t, scheme);
    const first = await client.createBackup(repository, { save: true });
    assert.deepEqual(
      first.databases.map(({ path, stored, reason, page_size: size }) => [path, stored, reason, size]),
      [["data/app.db", "base", null, 4096]],
    );
    const images = [readFileSync(file)];
    const states = [walkDigests(folder).state];
    for (const ids of [[7, 300], [8]]) {
      update(ids);
      const { databases, added } = await client.createBackup(repository, { save: true });
      assert.equal(databases[0]!.stored, "delta");
      assert.ok(databases[0]!.changed_pages < 8, JSON.stringify(databases));
      assert.ok(added.bytes < 80_000 + 3 * 65_536, JSON.stringify(added));
      images.push(readFileSync(file));
      states.push(walkDigests(folder).state);
    }
    const same = await client.createBackup(repository, { save: true });
    assert.deepEqual([same.unchanged, same.databases[0]!.stored, same.added.data_blobs], [true, "same", 0]);
    const { problems, checked } = await repository.verify();
    assert.deepEqual([problems, checked.digests], [[], 4]);
    const { snapshots } = await repository.list();
    for (const [n, { snapshot_id: id }] of snapshots.slice(0, 3).entries()) {
      const target = join(root, `restored-${n}`);
      const { proof, left_out: leftOut } = await repository.restore(id, target);
      assert.deepEqual([leftOut, proof?.state_digest, proof?.metadata_equal], [[], states[n], true]);
      assert.ok(readFileSync(join(target, "data/app.db")).equals(images[n]!));
    }
    const part = join(root, "part");
    const { left_out: leftOut } = await repository.restore("latest", part, { paths: ["data/app.db"], prove: true });
    assert.deepEqual(leftOut, []);
    assert.ok(readFileSync(join(part, "data/app.db")).equals(images[2]!));
    assert.ok(!existsSync(join(part, "many")));
    assert.equal(statSync(join(part, "data/app.db")).mtimeMs, statSync(file).mtimeMs);
  });

test("a database is stored whole again if the repository has lost pages of the previous snapshot", async (t) => {
  const { client, repository, root, place, update, file } = await databaseScene(t);
  await client.createBackup(repository, { save: true });
  const data = join(place, "data");
  for (const each of readdirSync(data, { recursive: true, encoding: "utf8" }))
    if (statSync(join(data, each)).size > 200_000) rmSync(join(data, each));
  update([3]);
  const { databases } = await client.createBackup(repository, { save: true });
  assert.deepEqual(
    databases.map(({ stored, reason }) => [stored, reason]),
    [["base", "the repository lacks pages of the previous snapshot"]],
  );
  const { left_out: left } = await repository.restore("latest", join(root, "restored"));
  assert.deepEqual(left, []);
  assert.ok(readFileSync(join(root, "restored", "data/app.db")).equals(readFileSync(file)));
});

test("restore sets a database's extended attributes whose names are not UTF-8", async (t) => {
  const { client, repository, root, file } = await databaseScene(t);
  const name = Buffer.from("user.\xff\xfe", "latin1");
  if (!setAttribute(file, name, "v")) return t.skip("the file system has no attributes");
  await client.createBackup(repository, { save: true });
  const { proof, left_out: left } = await repository.restore("latest", join(root, "restored"));
  assert.deepEqual([left, proof?.metadata_equal], [[], true]);
});

test("restore writes a database into a folder that its owner may not write to", async (t) => {
  if (!rightsCount()) {
    const isRun = runWithoutCapabilities(fileURLToPath(import.meta.url), "its owner may not write to");
    if (!isRun) t.skip("setpriv is missing");
    return;
  }
  const { client, repository, root, folder, file } = await databaseScene(t);
  const restored = join(root, "restored", "data");
  chmodSync(file, 0o444);
  chmodSync(join(folder, "data"), 0o555);
  try {
    const { databases } = await client.createBackup(repository, { save: true });
    assert.equal(databases.length, 1);
    const { proof, left_out: left } = await repository.restore("latest", join(root, "restored"));
    assert.deepEqual([left, proof?.metadata_equal, statSync(restored).mode & 0o777], [[], true, 0o555]);
    chmodSync(restored, 0o755);
  } finally {
    // What removes it is not root.
    chmodSync(join(folder, "data"), 0o755);
  }
});

test("restore of a database stops on a signal and leaves no files", async (t) => {
  const { client, repository, root, change } = await databaseScene(t);
  change((database) =>
    database.exec(`WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 20000)
      INSERT INTO t (content) SELECT randomblob(2000) FROM n`),
  );
  await client.createBackup(repository, { save: true });
  const stop = new AbortController();
  let [told, last] = [0, 0];
  const onProgress = ({ bytes = 0 }: { bytes?: number }): void => {
    if (bytes > 4 * 2 ** 20 && told++ === 0) stop.abort();
    last = bytes;
  };
  const target = join(root, "restored");
  const restored = repository.restore("latest", target, { signal: stop.signal, onProgress, prove: false });
  await assert.rejects(restored, hasCode("interrupted"));
  assert.deepEqual([told > 0, last < 30 * 2 ** 20, existsSync(target)], [true, true, false]);
});

test("createBackup stores lost database pages again even if the folder is unchanged", async (t) => {
  const at = await databaseScene(t);
  const { client, repository, root } = at;
  await client.createBackup(repository, { save: true });
  const [name] = (await nodesIn(repository, "/.cairn/databases")).map((node) => node.name);
  const { content } = await nodeAt(repository, "latest", `/.cairn/databases/${name!}/map`);
  rmSync(await packWith(at, content![0]!));
  const again = await client.createBackup(repository, { save: true, skipIfUnchanged: true });
  assert.equal(again.added.packs > 0, true);
  const { left_out: left } = await repository.restore("latest", join(root, "restored"));
  assert.deepEqual(left, []);
});

test("a database is stored whole after VACUUM or a change of its page size, and the result names the reason", async (t) => {
  const { client, repository, root, change, file } = await databaseScene(t);
  const warnings: string[] = [];
  const onWarning = (warning: string): void => void warnings.push(warning);
  const create = async () => (await client.createBackup(repository, { save: true, onWarning })).databases[0]!;
  assert.deepEqual([(await create()).stored, (await create()).stored, warnings], ["base", "same", []]);
  change((database) => database.exec("DELETE FROM t WHERE id % 3 = 0; VACUUM"));
  const vacuumed = await create();
  assert.equal(vacuumed.stored, "base");
  assert.match(vacuumed.reason!, /of \d+ pages changed, as after VACUUM/);
  change((database) => database.exec("PRAGMA page_size = 8192; VACUUM"));
  const { stored, reason, page_size: size } = await create();
  assert.deepEqual([stored, reason, size], ["base", "its page size is 8192 bytes now, and was 4096", 8192]);
  assert.deepEqual(
    warnings.map((each) => each.replace(/up to .*?:/, "up to:").replace(/\d+ of \d+/, "n of n")),
    [
      "data/app.db is stored as a whole again, up to: n of n pages changed, as after VACUUM",
      "data/app.db is stored as a whole again, up to: its page size is 8192 bytes now, and was 4096",
    ],
  );
  const image = readFileSync(file);
  const target = join(root, "restored");
  await repository.restore("latest", target);
  assert.ok(readFileSync(join(target, "data/app.db")).equals(image));
});

test("a database with a journal, or with several names, is stored as a plain file", async (t) => {
  const { client, repository, folder, root, file } = await databaseScene(t);
  linkSync(file, join(folder, "other name"));
  writeFileSync(join(folder, "deep", "b.db"), readFileSync(file));
  writeFileSync(join(folder, "deep", "b.db-journal"), "no journal");
  const { databases } = await client.createBackup(repository, { save: true, databases: "copy" });
  assert.deepEqual(databases, []);
  const { proof } = await repository.restore("latest", join(root, "restored"));
  assert.equal(proof?.state_digest, walkDigests(folder).state);
});

test("verify and restore name a database if any of its stored files is damaged", async (t) => {
  const at = await databaseScene(t);
  const { client, repository, root, update } = at;
  await client.createBackup(repository, { save: true });
  update([5, 200]);
  const { snapshot } = await client.createBackup(repository, { save: true });
  const [name] = (await nodesIn(repository, "/.cairn/databases")).map((node) => node.name);
  const files: string[] = [];
  for (const node of await nodesIn(repository, `/.cairn/databases/${name!}`)) {
    const inside = node.type === "dir" ? await nodesIn(repository, `/.cairn/databases/${name!}/${node.name}`) : [];
    files.push(...(node.type === "dir" ? inside.map((each) => `${node.name}/${each.name}`) : [node.name]));
  }
  assert.deepEqual(files, [
    "base/hashes",
    "base/pages",
    "delta-0001/hashes",
    "delta-0001/pages",
    "manifest.json",
    "map",
  ]);
  const whole = join(root, "whole");
  cpSync(at.place, whole, { recursive: true });
  for (const file of files) {
    const { content } = await nodeAt(repository, "latest", `/.cairn/databases/${name!}/${file}`);
    await damageBlob(at, content!.at(-1)!);
    const target = join(root, `without ${file.replace("/", " ")}`);
    const { left_out: left, proof } = await repository.restore("latest", target);
    assert.equal(proof, null, file);
    assert.deepEqual(
      left.map(({ path, reason }) => [path, reason]),
      [["data/app.db", "damaged"]],
    );
    if (file.endsWith("pages")) assert.match(left[0]!.detail, /database data\/app\.db: page \d+/);
    assert.ok(!existsSync(join(target, "data/app.db")) && existsSync(join(target, "many/7")));
    const alone = await repository.restore("latest", join(root, `alone ${file.replace("/", " ")}`), {
      paths: ["data"],
    });
    assert.deepEqual([alone.left_out.map(({ path }) => path), alone.proof], [["data/app.db"], null]);
    const { entries } = await repository.show("latest", "data");
    assert.deepEqual(
      entries.map(({ path }) => path),
      ["data/app.db"],
    );
    const { problems } = await repository.verify();
    const found = problems.filter(({ kind }) => kind === "database_damaged").flatMap(({ losses }) => losses);
    assert.ok(
      found.some(({ snapshot_id: id }) => id === snapshot!.snapshot_id),
      JSON.stringify(problems),
    );
    rmSync(at.place, { recursive: true });
    cpSync(whole, at.place, { recursive: true });
  }
});

test("restore names each database as damaged if the tree of stored databases is lost", async (t) => {
  const at = await databaseScene(t);
  const { client, repository, root } = at;
  await client.createBackup(repository, { save: true });
  const { subtree } = await nodeAt(repository, "latest", "/.cairn/databases");
  await damageBlob(at, subtree!);
  const { left_out: left } = await repository.restore("latest", join(root, "restored"));
  assert.deepEqual(
    left.filter(({ reason }) => reason === "damaged").map(({ path }) => path),
    ["data/app.db"],
  );
  await repository.repair({ what: "packs" });
  const { repaired, unreadable } = await repository.repairSnapshots({ forget: true });
  assert.deepEqual([unreadable, repaired.length], [[], 1]);
  assert.match(repaired[0]!.lost.map(({ path }) => path).join(), /^[^,]*\/data\/app\.db$/);
  assert.deepEqual((await repository.verify()).problems, []);
});

for (const lost of ["delta-0001/pages", "map", "manifest.json", "its folder"])
  test(`repairSnapshots takes out a page-stored database, and no other, if the repository has lost ${lost}`, async (t) => {
    const at = await databaseScene(t);
    const { client, repository, root, folder, update } = at;
    mkdirSync(join(folder, "other"));
    writeFileSync(join(folder, "other/beside"), "");
    const other = new DatabaseSync(join(folder, "other/other.db"));
    other.exec("CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(900000))");
    other.close();
    await client.createBackup(repository, { save: true });
    update([5, 200]);
    await client.createBackup(repository, { save: true });
    const name = (await nodesIn(repository, "/.cairn/databases")).find((node) => node.name.startsWith("app.db"))!.name;
    const whole = join(folder, "data").slice(1);
    const place = lost === "its folder" ? `/${whole}` : `/.cairn/databases/${name}/${lost}`;
    const node = await nodeAt(repository, "latest", place);
    await damageBlob(at, node.subtree ?? node.content!.at(-1)!);
    await repository.repair({ what: "packs" });
    const { repaired, unreadable } = await repository.repairSnapshots({ forget: true });
    assert.deepEqual(unreadable, []);
    const gone = new Set(repaired.flatMap((each) => each.lost.map(({ path }) => path)));
    assert.deepEqual([...gone].toSorted(), lost === "its folder" ? [whole, `${whole}/app.db`] : [`${whole}/app.db`]);
    assert.deepEqual((await repository.verify()).problems, []);
    const { left_out: left } = await repository.restore("latest", join(root, "restored"));
    assert.ok(left.length > 0 && !existsSync(join(root, "restored/data/app.db")));
    const back = readFileSync(join(root, "restored/other/other.db"));
    assert.ok(back.equals(readFileSync(join(folder, "other/other.db"))));
  });

test("show, diff and read find a database stored page by page at its own path", async (t) => {
  const { client, repository, folder, file, update } = await databaseScene(t);
  const first = await client.createBackup(repository, { save: true });
  update([9]);
  await client.createBackup(repository, { save: true });
  const { entries } = await repository.show("latest", "data");
  assert.deepEqual(
    entries.map(({ path, size }) => [path, size]),
    [["data/app.db", statSync(file).size]],
  );
  const { found } = await repository.find("app.db");
  assert.deepEqual(
    found.map(({ path, size }) => [path, size]),
    [1, 2].map(() => [join(folder, "data/app.db"), statSync(file).size]),
  );
  const { entries: changes } = await repository.diff(first.snapshot!.snapshot_id, "latest");
  assert.deepEqual(
    changes.filter(({ aspects }) => aspects.includes("content")).map(({ path }) => path),
    ["data/app.db"],
  );
  const parts: Uint8Array[] = [];
  for await (const part of repository.read("latest", "data/app.db")) parts.push(part);
  assert.ok(Buffer.concat(parts).equals(readFileSync(file)));
});

test("restoreBackup restores a page-stored database in place in a folder that never had its point", async (t) => {
  const { client, library, repository, root, folder, file, update } = await databaseScene(t);
  update([3]);
  const { snapshot } = await client.createBackup(repository, { save: true });
  const id = snapshot!.snapshot_id;
  const image = readFileSync(file);
  const { state } = walkDigests(folder);
  update([1]);
  await client.createBackup(repository, { save: true });
  const other = join(root, "other");
  mkdirSync(join(other, "data"), { recursive: true });
  writeFileSync(join(other, "here"), "goes");
  const elsewhere = await library.init(other);
  const chosen = await elsewhere.restoreBackup(repository, id, { paths: ["data/app.db"] });
  assert.deepEqual(chosen.left_out, []);
  assert.deepEqual(
    [readFileSync(join(other, "data/app.db")).equals(image), existsSync(join(other, "here"))],
    [true, true],
  );
  const { plan_id: equal, planned_entries: none } = await elsewhere.restoreBackup(repository, id, {
    paths: ["data/app.db"],
    dryRun: true,
  });
  assert.deepEqual([none, equal === null], [[], false]);
  writeFileSync(join(other, "data/app.db"), "no database any more");
  const { plan_id: plan, planned_entries: planned } = await elsewhere.restoreBackup(repository, id, { dryRun: true });
  assert.ok(planned!.some(({ path, action }) => path === "data/app.db" && action === "update"));
  const { proof, left_out: left } = await elsewhere.restoreBackup(repository, id, { plan: plan! });
  assert.deepEqual([left, proof?.state_digest, existsSync(join(other, "here"))], [[], state, false]);
  assert.ok(readFileSync(join(other, "data/app.db")).equals(image));
  const point = await elsewhere.save();
  assert.deepEqual([point.unchanged, (await elsewhere.verify("head")).problems], [true, []]);
});

test("restoreBackup in place changes nothing if a page of a database is damaged", async (t) => {
  const { client, library, repository, root, place } = await databaseScene(t);
  const { snapshot } = await client.createBackup(repository, { save: true });
  const other = join(root, "other");
  mkdirSync(other);
  writeFileSync(join(other, "here"), "stays");
  const elsewhere = await library.init(other);
  for (const each of readdirSync(join(place, "data"), { recursive: true, encoding: "utf8" }))
    if (statSync(join(place, "data", each)).size > 200_000) rmSync(join(place, "data", each));
  const before = await elsewhere.history();
  await assert.rejects(elsewhere.restoreBackup(repository, snapshot!.snapshot_id), hasCode("damaged"));
  assert.deepEqual([readdirSync(other), await elsewhere.history()], [["here"], before]);
});

test("rewrite takes a page-stored database out of each snapshot by its own path or its folder's", async (t) => {
  for (const pattern of ["app.db", "data", "/data/app.db"]) {
    const { client, repository, root, folder, update } = await databaseScene(t);
    const other = new DatabaseSync(join(folder, "other.db"));
    other.exec(`CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(900000))`);
    other.close();
    await client.createBackup(repository, { save: true });
    update([2]);
    await client.createBackup(repository, { save: true });
    const { rewritten, unreadable } = await repository.rewrite({ exclude: [pattern], forget: true });
    assert.deepEqual([unreadable, rewritten.length], [[], 2]);
    for (const { taken_out: taken } of rewritten)
      assert.ok(
        taken.some(({ path, kind }) => path.endsWith("/data/app.db") && kind === "file"),
        JSON.stringify(taken),
      );
    const { problems, checked } = await repository.verify();
    assert.deepEqual([problems, checked.digests], [[], 2], pattern);
    const { left_out: left } = await repository.restore("latest", join(root, "restored"));
    assert.deepEqual(
      left.filter(({ reason }) => reason === "damaged"),
      [],
    );
    assert.ok(!existsSync(join(root, "restored", "data/app.db")));
    assert.ok(readFileSync(join(root, "restored/other.db")).equals(readFileSync(join(folder, "other.db"))));
    assert.deepEqual((await repository.find("app.db*")).found, []);
  }
});

test("restore rebuilds each version of a database after other versions were forgotten and pruned", async (t) => {
  const { client, repository, root, folder } = await databaseScene(t);
  const seed = Number(process.env["CAIRN_FUZZ_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  const random = randomFrom(seed);
  const below = (n: number): number => Math.floor(random() * n);
  const file = join(folder, "pages.db");
  const pageSize = 1024;
  const header = Buffer.alloc(pageSize);
  header.write("SQLite format 3\0", "latin1");
  header.writeUInt16BE(pageSize, 16);
  let image = Buffer.concat([header, randomBytes(900 * pageSize)]);
  const states: { id: string; state: string }[] = [];
  const kinds = new Set<string>();
  for (let generation = 0; generation < 24; generation++) {
    writeFileSync(file, image);
    const { snapshot, databases } = await client.createBackup(repository, { save: true, databases: "copy" });
    kinds.add(databases.find(({ path }) => path === "pages.db")!.stored);
    states.push({ id: snapshot!.snapshot_id, state: walkDigests(folder).state });
    for (let edit = 1 + below(30); edit > 0; edit--)
      randomBytes(pageSize).copy(image, (1 + below(image.length / pageSize - 1)) * pageSize);
    if (below(4) === 0) image = Buffer.concat([image, randomBytes((1 + below(90)) * pageSize)]);
    if (below(5) === 0) image = image.subarray(0, (700 + below(100)) * pageSize);
  }
  assert.deepEqual(kinds, new Set(["base", "delta"]));
  // Half of them go, some with the base that others go by.
  const gone = states.filter((_, n) => n === 0 || below(2) === 0).map(({ id }) => id);
  await repository.forget({ snapshots: gone });
  await repository.prune();
  const left = states.filter(({ id }) => !gone.includes(id));
  for (const { id, state } of left) {
    const target = join(root, id);
    const { proof } = await repository.restore(id, target);
    assert.equal(proof?.state_digest, state, `CAIRN_FUZZ_SEED=${seed}`);
    rmSync(target, { recursive: true });
  }
  const { problems, checked } = await repository.verify();
  assert.deepEqual([problems, checked.digests], [[], left.length]);
});

test("a database is stored whole again after 30 files of changed pages", async (t) => {
  const { client, repository, folder } = await databaseScene(t);
  const image = Buffer.concat([Buffer.alloc(1024), randomBytes(1023 * 1024)]);
  image.write("SQLite format 3\0", "latin1");
  image.writeUInt16BE(1024, 16);
  const kinds: string[] = [];
  for (let round = 0; round < 32; round++) {
    image.write(`round ${round}`, 5000);
    writeFileSync(join(folder, "pages.db"), image);
    const { databases } = await client.createBackup(repository, { save: true, databases: "copy" });
    const { stored, reason } = databases.find(({ path }) => path === "pages.db")!;
    kinds.push(reason === null ? stored : `${stored}: ${reason}`);
  }
  assert.deepEqual(kinds, [
    "base",
    ...Array.from({ length: 30 }, () => "delta"),
    "base: the database had 30 files of changed pages",
  ]);
});

test("restore writes a page-stored database over an older one, from a subfolder and from a copy", async (t) => {
  const { client, repository, root, file, update } = await databaseScene(t);
  await client.createBackup(repository, { save: true });
  const old = join(root, "old");
  await repository.restore("latest", old);
  update([11]);
  await client.createBackup(repository, { save: true });
  const image = readFileSync(file);
  const over = await repository.restore("latest", old, { overwrite: "if-changed" });
  assert.deepEqual([over.left_out, over.overwritten?.written], [[], 1], JSON.stringify(over));
  assert.ok(readFileSync(join(old, "data/app.db")).equals(image));
  const below = join(root, "below");
  const part = await repository.restore("latest", below, { subfolder: "data", prove: true });
  assert.deepEqual([part.left_out, part.entries], [[], 1]);
  assert.ok(readFileSync(join(below, "app.db")).equals(image));
  const location = join(root, "copies");
  await makeRepository({ repository: location, password: "p" });
  const copies = await (await openLibrary()).openRepository({ repository: location, password: "p" });
  t.after(async () => copies.close());
  await repository.copyTo(copies, { snapshots: ["latest"] });
  const { proof } = await copies.restore("latest", join(root, "of a copy"));
  assert.equal(proof?.metadata_equal, true);
  assert.ok(readFileSync(join(root, "of a copy", "data/app.db")).equals(image));
});

test("a dry run of createBackup counts a database's changed pages and stores nothing", async (t) => {
  const { client, repository, update } = await databaseScene(t);
  await client.createBackup(repository, { save: true });
  update([2]);
  await client.save();
  const { databases, added, snapshot } = await client.createBackup(repository, { dryRun: true });
  assert.deepEqual([databases[0]!.stored, snapshot], ["delta", null]);
  assert.ok(added.bytes > 4096 && added.stored_bytes > 0);
  assert.equal((await repository.list()).snapshots.length, 1);
});

test("the page at SQLite's lock offset is in no delta, and a database with data there stays a plain file", async (t) => {
  const { client, repository, root, folder } = await backupScene(t, "local");
  const file = join(folder, "beyond.db");
  const pageSize = 65_536;
  const head = Buffer.alloc(pageSize);
  head.write("SQLite format 3\0", "latin1");
  head.writeUInt16BE(1, 16);
  const put = (page: number, bytes: Buffer): void => {
    const fd = openSync(file, "a+");
    closeSync(fd);
    const open = openSync(file, "r+");
    writeSync(open, bytes, 0, bytes.length, page * pageSize);
    closeSync(open);
  };
  const locked = 0x4000_0000 / pageSize;
  const create = async () => client.createBackup(repository, { save: true, databases: "copy" });
  put(0, head);
  put(locked - 1, randomBytes(pageSize));
  assert.equal((await create()).databases[0]!.stored, "base");
  // It grows over the locked page.
  put(locked + 1, randomBytes(pageSize));
  const { databases } = await create();
  assert.deepEqual([databases[0]!.stored, databases[0]!.changed_pages], ["delta", 1]);
  const { proof } = await repository.restore("latest", join(root, "restored"), { sparse: true, proveFrom: "memory" });
  assert.equal(proof?.state_digest, walkDigests(folder).state);
  put(locked, randomBytes(100));
  assert.deepEqual((await create()).databases, []);
});

test("a database is stored as the same tree with any number of workers", async (t) => {
  const { client, repository, root, update } = await databaseScene(t);
  const library = await openLibrary();
  const password = "p";
  const others = await Promise.all(
    [1, 3].map(async (jobs) => {
      const location = join(root, `by-${jobs}`);
      await makeRepository({ repository: location, password });
      return { jobs, repository: await library.openRepository({ repository: location, password }) };
    }),
  );
  t.after(async () => Promise.all(others.map(async (each) => each.repository.close())));
  const trees: Set<string>[] = [];
  for (let round = 0; round < 2; round++) {
    await client.createBackup(repository, { save: true });
    const made = await Promise.all(
      others.map(async (each) => (await client.createBackup(each.repository, { jobs: each.jobs })).snapshot!.tree),
    );
    trees.push(new Set(made));
    update([3, 100]);
  }
  assert.deepEqual(
    trees.map(({ size }) => size),
    [1, 1],
  );
});

async function nodesIn(repository: BackupRepository, path: string): Promise<{ name: string; type: string }[]> {
  const { subtree } = await nodeAt(repository, "latest", path);
  return ((await repository.cat("tree", subtree!)).content as { nodes: { name: string; type: string }[] }).nodes;
}

/** Ways in which a program changes its database from one backup to the next. */
const CHANGES: readonly (readonly [name: string, change: (database: DatabaseSync) => void])[] = [
  ["a few pages", (database) => void database.exec("UPDATE t SET content = randomblob(900) WHERE id % 90 = 1")],
  ["it grows", (database) => void insertRows(database, 300)],
  ["it shrinks", (database) => void database.exec("DELETE FROM t WHERE id > 2000; PRAGMA incremental_vacuum(40)")],
  ["VACUUM", (database) => void database.exec("VACUUM")],
  ["WAL mode", (database) => void database.exec("PRAGMA journal_mode = WAL; DELETE FROM t WHERE id < 30")],
  ["its schema", (database) => void database.exec("CREATE INDEX i ON t (content)")],
];

function insertRows(database: DatabaseSync, count: number): void {
  const row = database.prepare("INSERT INTO t (content) VALUES (randomblob(900))");
  database.exec("BEGIN");
  for (let n = 0; n < count; n++) row.run();
  database.exec("COMMIT");
}

const LAYOUTS = [
  [4096, 2],
  [65_536, 1],
  [512, 0],
  [1024, 1],
  [16_384, 0],
] as const;
for (const [pageSize, autoVacuum] of firstOf(LAYOUTS, 2))
  test(`each state of a database with pages of ${pageSize} bytes and auto_vacuum ${autoVacuum} comes back byte by byte`, async (t) => {
    const { client, repository, root, folder } = await backupScene(t, "local");
    const file = join(folder, "real.db");
    const states: { id: string; state: string; name: string }[] = [];
    const back = async (name: string): Promise<string | undefined> => {
      const { snapshot, databases } = await client.createBackup(repository, { save: true });
      states.push({ id: snapshot!.snapshot_id, state: walkDigests(folder).state, name });
      return databases.find(({ path }) => path === "real.db")?.stored;
    };
    const database = new DatabaseSync(file);
    database.exec(`PRAGMA page_size = ${pageSize}; PRAGMA auto_vacuum = ${autoVacuum}; VACUUM`);
    database.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB)");
    insertRows(database, 2600);
    database.close();
    assert.equal(await back("new"), "base");
    for (const [name, change] of CHANGES) {
      const open = new DatabaseSync(file);
      change(open);
      open.close();
      assert.notEqual(await back(name), undefined, name);
    }
    const other = new DatabaseSync(join(root, "other.db"));
    other.exec("CREATE TABLE o (v); INSERT INTO o VALUES (randomblob(1500000))");
    other.close();
    cpSync(join(root, "other.db"), file);
    assert.equal(await back("another database"), "base");
    writeFileSync(file, randomBytes(1_500_000));
    assert.equal(await back("no database"), undefined);
    for (const { id, state, name } of states) {
      const target = join(root, id);
      const { proof, left_out: left } = await repository.restore(id, target);
      assert.deepEqual([left, proof?.state_digest], [[], state], name);
      rmSync(target, { recursive: true });
    }
    assert.deepEqual((await repository.verify()).problems, []);
  });

test("a backup after random changes of 1 % of the pages of 8 MB stores little more than these pages", async (t) => {
  const { client, repository, folder } = await backupScene(t, "local");
  const file = join(folder, "real.db");
  const database = new DatabaseSync(file);
  database.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB)");
  const content = (): string => `${randomBytes(1200).toString("hex")}${" ".repeat(1100)}`;
  const insert = database.prepare("INSERT INTO t (content) VALUES (?)");
  database.exec("BEGIN");
  for (let id = 0; id < 2000; id++) insert.run(content());
  database.exec("COMMIT");
  await client.createBackup(repository, { save: true });
  const before = readFileSync(file);
  const update = database.prepare("UPDATE t SET content = ? WHERE id = ?");
  for (let id = 7; id <= 2000; id += 100) update.run(content(), id);
  database.close();
  const now = readFileSync(file);
  const pages: Buffer[] = [];
  for (let at = 0; at < now.length; at += 4096) {
    const page = now.subarray(at, at + 4096);
    if (!page.equals(before.subarray(at, at + 4096))) pages.push(page);
  }
  const { added } = await client.createBackup(repository, { save: true });
  const ratio = added.stored_bytes / zstdCompressSync(Buffer.concat(pages)).length;
  assert.ok(pages.length >= 20 && ratio <= 2, `${pages.length} pages, ratio ${ratio}`);
});
