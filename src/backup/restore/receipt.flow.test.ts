import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { verifyReceipt, writeReceipt } from "./receipt.ts";
import { CairnError } from "../../errors.ts";
import { decodeReceipt } from "../../formats/records/receipt.ts";
import { backupScene } from "../testing-far.ts";

function refusal(message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CairnError, String(error));
    assert.equal(error.code, "usage");
    assert.match(error.message, message);
    assert.notEqual(error.hint, undefined);
    return true;
  };
}

test("restore writes nothing if the receipt cannot be written to its path", async (t) => {
  const { client, repository, root, folder } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  const target = join(root, "restored");
  mkdirSync(target);
  symlinkSync(target, join(root, "link"));
  const taken = join(root, "taken.json");
  writeFileSync(taken, "mine\n");
  symlinkSync(join(root, "nothing"), join(root, "dangling.json"));
  for (const [receipt, message] of [
    [taken, /already exists/],
    [join(root, "dangling.json"), /already exists/],
    [root, /is a folder/],
    [join(root, "absent/receipt.json"), /there is no folder/],
    [join(taken, "receipt.json"), /is not a folder/],
    [target, /is a folder/],
    [join(target, "receipt.json"), /lies in the restored folder/],
    [join(root, "link/receipt.json"), /lies in the restored folder/],
  ] as const) {
    await assert.rejects(repository.restore("latest", target, { receipt }), refusal(message));
  }
  await assert.rejects(
    client.restoreBackup(repository, "latest", { receipt: join(folder, "receipt.json") }),
    refusal(/lies in the restored folder/),
  );
  assert.equal(readFileSync(taken, "utf8"), "mine\n");
  for (const path of ["absent", "restored/a.txt", "restored/receipt.json"])
    assert.equal(existsSync(join(root, path)), false, path);
});

test("verifyReceipt refuses a path that is a folder as a usage error", async (t) => {
  const { root } = await backupScene(t, "local");
  await assert.rejects(verifyReceipt(root, {}), refusal(/is not a regular file/));
});

test("restore writes nothing if a receipt is requested for a restore that proves nothing", async (t) => {
  const { client, repository, root } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  const target = join(root, "restored");
  const receipt = join(root, "receipt.json");
  for (const options of [{ prove: false }, { paths: ["a.txt"] }, { include: ["*.txt"] }, { exclude: ["*.txt"] }])
    await assert.rejects(repository.restore("latest", target, { receipt, ...options }), refusal(/no receipt/));
  const points = (await client.history(undefined, 0, { all: true })).save_points.length;
  for (const options of [{ prove: false }, { keepPresent: true }, { paths: ["a.txt"] }])
    await assert.rejects(client.restoreBackup(repository, "latest", { receipt, ...options }), refusal(/no receipt/));
  assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, points);
  assert.deepEqual([existsSync(target), existsSync(receipt)], [false, false]);
  const { proof } = await client.restoreBackup(repository, "latest", { receipt });
  assert.deepEqual([proof?.receipt, existsSync(receipt)], [receipt, true]);
});

test("a receipt has SQLite's check result for each database", async (t) => {
  const { client, repository, folder, root } = await backupScene(t, "local");
  const database = new DatabaseSync(join(folder, "app.db"));
  database.exec("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2), (3)");
  database.close();
  await client.createBackup(repository, { save: true });
  const receipt = join(root, "receipt.json");
  const { proof } = await repository.restore("latest", join(root, "restored"), { receipt });
  const bytes = readFileSync(join(root, "restored/app.db"));
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const [shown] = proof!.databases;
  assert.deepEqual(
    [shown?.path, shown?.pages, shown?.sha256, shown?.check, shown?.problems, shown?.label],
    ["app.db", bytes.length / 4096, sha256, "quick_check", [], "transaction-consistent"],
  );
  assert.deepEqual(shown?.statistics?.tables, [{ name: "t", rows: 3 }]);
  const { receipt: body } = await verifyReceipt(receipt, {});
  const [signed] = (body as unknown as { databases: Record<string, unknown>[] }).databases;
  assert.deepEqual([signed?.["path"], signed?.["sha256"], signed?.["rows"]], ["app.db", sha256, 3]);
  assert.deepEqual(readdirSync(join(root, "restored")).toSorted(), readdirSync(folder).toSorted());
});

test("list has the rows of each table of snapshots that were restored here, from signed receipts only", async (t) => {
  const { client, repository, root, folder } = await backupScene(t, "local");
  const database = new DatabaseSync(join(folder, "app.db"));
  database.exec("CREATE TABLE b (id); CREATE TABLE a (id); INSERT INTO a VALUES (1), (2), (3)");
  const backUp = async (): Promise<string> =>
    (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
  const first = await backUp();
  database.exec("INSERT INTO b VALUES (1)");
  database.close();
  const second = await backUp();
  const rowsOf = async (): Promise<unknown> =>
    (await repository.list()).snapshots.map(({ counted }) =>
      counted?.databases.map(({ path, tables }) => [path, tables]),
    );
  assert.deepEqual(await rowsOf(), [undefined, undefined]);
  await repository.restore(first, join(root, "restored"));
  const { proof } = await repository.restore(second, join(root, "also"));
  const of = (a: number, b: number): unknown => [
    [
      "app.db",
      [
        { name: "a", rows: a },
        { name: "b", rows: b },
      ],
    ],
  ];
  assert.deepEqual(await rowsOf(), [of(3, 0), of(3, 1)]);
  const file = proof!.receipt!;
  const receipt = JSON.parse(readFileSync(file, "utf8")) as { body_b64: string };
  const body = Buffer.from(receipt.body_b64, "base64").toString().replace('"rows":1', '"rows":9');
  for (const changed of [JSON.stringify({ ...receipt, body_b64: Buffer.from(body).toString("base64") }), "{"]) {
    writeFileSync(file, changed);
    assert.deepEqual(await rowsOf(), [of(3, 0), undefined]);
  }
});

test("a backup counts as proven by a signed receipt only, also before many receipts about other repositories", async (t) => {
  const { client, repository, root } = await backupScene(t, "local");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const { proof } = await repository.restore(snapshot!.snapshot_id, join(root, "restored"));
  const file = proof!.receipt!;
  const facts = decodeReceipt(readFileSync(file)).body;
  for (let each = 0; each < 100; each++) await writeReceipt({ ...facts, repository_id: "f".repeat(64) }, undefined);
  const lookedUp = async () => {
    const { receipts, debt } = await client.receipts();
    return [receipts.map((each) => each.file), debt.map(({ unproven, proven_at }) => [unproven, proven_at])];
  };
  assert.deepEqual(await lookedUp(), [[file], [[0, facts.made_at]]]);
  const stored = JSON.parse(readFileSync(file, "utf8")) as { body_b64: string };
  const body = Buffer.from(stored.body_b64, "base64").toString().replace(facts.target, facts.target.toUpperCase());
  writeFileSync(file, JSON.stringify({ ...stored, body_b64: Buffer.from(body).toString("base64") }));
  assert.deepEqual(await lookedUp(), [[file], [[1, null]]]);
});

test("a receipt of very many tables has only their sums, so that it can be verified", async (t) => {
  await backupScene(t, "local");
  const tables = Array.from({ length: 100 }, (_, n) => ({ name: `table number ${n}`, rows: n }));
  const facts = {
    pages: 1,
    sha256: "0".repeat(64),
    check: "quick_check",
    problems: 0,
    schema_sha256: null,
    rows: 4950,
  };
  const databases = Array.from({ length: 300 }, (_, n) => ({
    ...facts,
    path: `tenants/${n}.db`,
    tables,
    label: null,
    duration_ms: 1,
  }));
  const id = "1".repeat(64);
  const proven = { repository_id: id, snapshot_id: id, save_point_id: null, state_digest: id, metadata_digest: null };
  const path = await writeReceipt(
    { ...proven, metadata_equal: false, left_out: 0, databases, target: "/x" },
    undefined,
  );
  const { receipt } = await verifyReceipt(path, {});
  const [first] = receipt["databases"] as { rows: number; tables?: unknown }[];
  assert.deepEqual([first!.rows, first!.tables], [4950, undefined]);
});
