import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { backupScene, type BackupScene } from "../backup/testing-far.ts";

const ROWS = "select path, size, sha256 from attachments";
const SAVING = { with: ["mail.db=att"], rows: [ROWS] };

const hashOf = (content: string | Buffer): string => createHash("sha256").update(content).digest("hex");

/** A workspace with a database and the files that its rows name. */
async function scene(
  t: TestContext,
): Promise<BackupScene & { name(...row: unknown[]): void; change(statement: string): void }> {
  const made = await backupScene(t, "local");
  const { folder } = made;
  mkdirSync(join(folder, "att/ab"), { recursive: true });
  const big = Buffer.alloc(3_000_000, "big");
  for (const [path, content] of [
    ["ab/one", "one"],
    ["two", "two"],
    ["empty", ""],
    ["big", big],
  ] as const)
    writeFileSync(join(folder, "att", path), content);
  const change = (statement: string, ...row: unknown[]): void => {
    const database = new DatabaseSync(join(folder, "mail.db"));
    database.prepare(statement).run(...(row as string[]));
    database.close();
  };
  change("CREATE TABLE attachments (path, size, sha256)");
  const name = (...row: unknown[]): void => change("INSERT INTO attachments VALUES (?, ?, ?)", ...row);
  name("ab/one", 3, hashOf("one"));
  name("./two", null, null);
  name("empty", 0, hashOf("").toUpperCase());
  name(Buffer.from("big"), 3_000_000, Buffer.from(hashOf(big), "hex"));
  // Rows without a path name no file.
  name(null, 1, "x");
  name("", null, null);
  return { ...made, name, change };
}

test("save compares the files that rows name by existence, size and SHA-256", async (t) => {
  const { client, name } = await scene(t);
  const warnings: string[] = [];
  const onWarning = (text: string): void => void warnings.push(text);
  const sound = await client.save({ ...SAVING, onWarning });
  assert.deepEqual(sound.rows, [{ path: "mail.db", folder: "att", named: 4, wrong: 0, files: [] }]);
  assert.deepEqual(warnings, []);
  name("gone", null, null);
  name("two", 4, null);
  name("two", null, hashOf("other"));
  name("two", null, "no hash");
  name("ab", null, null);
  name("../mail.db", null, null);
  name("/etc/passwd", null, null);
  const { rows, complete } = await client.save({ ...SAVING, onWarning });
  assert.deepEqual([complete, rows[0]!.named, rows[0]!.wrong], [true, 11, 7]);
  assert.deepEqual(
    rows[0]!.files.map(({ path, detail }) => [path, detail.replace(/;.*/, "")]),
    [
      ["att/gone", "missing"],
      ["att/two", "it has 3 bytes"],
      ["att/two", "its content differs from the SHA-256 of its row"],
      ["att/two", "its content differs from the SHA-256 of its row"],
      ["att/ab", "it is no file"],
      ["../mail.db", "the row names no path in the folder"],
      ["/etc/passwd", "the row names no path in the folder"],
    ],
  );
  assert.match(warnings.join("\n"), /rows of mail\.db name are missing or different: att\/gone: missing; /);
});

test("save without queries says that nothing was compared", async (t) => {
  const { client } = await scene(t);
  const warnings: string[] = [];
  const { rows } = await client.save({ with: ["mail.db=att"], onWarning: (text) => void warnings.push(text) });
  assert.deepEqual(rows, []);
  assert.match(warnings.join("\n"), /^mail\.db=att: .* nothing is compared; --rows/m);
  await assert.rejects(client.save({ rows: [ROWS] }), { code: "usage" });
  await assert.rejects(client.save({ with: ["mail.db=att"], rows: [ROWS, ROWS] }), { code: "usage" });
});

test("verify compares again, and an unchanged folder gets a point if its queries are new", async (t) => {
  const { client, name } = await scene(t);
  const plain = await client.save();
  const first = await client.save({ ...SAVING, skipUnchanged: true });
  assert.notEqual(first.save_point_id, plain.save_point_id);
  const again = await client.save({ ...SAVING, skipUnchanged: true });
  assert.deepEqual([again.made, again.rows[0]!.wrong], [false, 0]);
  assert.deepEqual((await client.verify(plain.save_point_id)).rows, []);
  assert.equal((await client.verify("head")).rows[0]!.named, 4);
  name("gone", null, null);
  await client.save(SAVING);
  const { problems, rows } = await client.verify("head");
  assert.deepEqual([problems, rows[0]!.wrong], [[], 1]);
  assert.equal((await client.verify(first.save_point_id)).rows[0]!.wrong, 0);
});

test("a backup, its restore check, its restore and the receipt compare again", async (t) => {
  const { client, library, repository, name, folder, root } = await scene(t);
  name("gone", null, null);
  // A file that comes after the save of the snapshot is not in it.
  const made = await client.createBackup(repository, SAVING);
  writeFileSync(join(folder, "att/gone"), "late");
  assert.equal(made.rows[0]!.wrong, 1);
  const { problems, restored } = await repository.verify({ quick: true, restoreCheck: true });
  assert.deepEqual([problems, restored[0]!.rows[0]!.files], [[], [{ path: "att/gone", detail: "missing" }]]);
  const { proof } = await repository.restore("latest", join(root, "back"));
  assert.equal(proof!.rows[0]!.wrong, 1);
  const { receipt } = await library.verifyReceipt(proof!.receipt!);
  assert.deepEqual(receipt["rows"], [{ path: "mail.db", folder: "att", named: 5, wrong: 1 }]);
  const inPlace = await client.restoreBackup(repository, "latest");
  assert.equal(inPlace.proof?.rows[0]?.wrong, 1);
});

test("a query that fails is listed, and the point is made", async (t) => {
  const { client } = await scene(t);
  const { rows, made } = await client.save({ with: ["mail.db=att"], rows: ["select path from nowhere"] });
  assert.deepEqual([made, rows[0]!.named, rows[0]!.wrong, rows[0]!.files[0]!.path], [true, 0, 1, "mail.db"]);
  assert.match(rows[0]!.files[0]!.detail, /^the query "select path from nowhere" fails: no such table/);
});

test("a save whose files cannot be compared answers with its point and names the reason", async (t) => {
  const { client, name } = await scene(t);
  await client.save();
  const { repository: store } = await client.store();
  const packs = (): string[] =>
    readdirSync(join(store, "data"), { recursive: true, encoding: "utf8" }).filter((each) =>
      /\/[0-9a-f]{64}$/.test(each),
    );
  const before = packs();
  name("two", 3, null);
  await client.save();
  // These packs have the database.
  for (const each of packs().filter((pack) => !before.includes(pack))) {
    const place = join(store, "data", each);
    const bytes = readFileSync(place);
    bytes[0]! ^= 1;
    rmSync(place);
    writeFileSync(place, bytes);
  }
  const warnings: string[] = [];
  const saved = await client.save({ ...SAVING, onWarning: (text) => void warnings.push(text) });
  assert.deepEqual([saved.made, saved.rows[0]!.path, saved.rows[0]!.wrong], [true, "mail.db", 1]);
  assert.match(saved.rows[0]!.files[0]!.detail, /^the files were not compared: .*blob/);
  assert.match(warnings.join("\n"), /is made, but the files were not compared/);
  // A verification has nothing else to answer.
  await assert.rejects(client.verify("head", { throwOnDamage: true }), { code: "damaged" });
  assert.equal((await client.history()).save_points[0]!.save_point_id, saved.save_point_id);
});

test("one database may have several folders and queries", async (t) => {
  const { client, folder, change } = await scene(t);
  mkdirSync(join(folder, "thumbs"));
  writeFileSync(join(folder, "thumbs/a"), "a");
  change("CREATE TABLE thumbs (path)");
  change("INSERT INTO thumbs VALUES ('a'), ('b')");
  const { rows } = await client.save({
    with: ["mail.db=att", "mail.db=thumbs", "mail.db=."],
    rows: [ROWS, "select path from thumbs", "select 'att/' || path as path from attachments where path = 'ab/one'"],
  });
  assert.deepEqual(
    rows.map((each) => [each.folder, each.named, each.wrong]),
    [
      ["att", 4, 0],
      ["thumbs", 2, 1],
      ["", 1, 0],
    ],
  );
});

test("a save without the file leaves the comparison of the older point as it was", async (t) => {
  const { client, folder } = await scene(t);
  const saved = await client.save(SAVING);
  rmSync(join(folder, "att/two"));
  assert.equal((await client.save(SAVING)).rows[0]!.wrong, 1);
  assert.equal((await client.verify(saved.save_point_id)).rows[0]!.wrong, 0);
});
