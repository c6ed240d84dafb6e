import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { CairnError } from "../errors.ts";
import { isIrreducible, randomPolynomial } from "./packs/polynomial.ts";
import { Repository } from "./repository.ts";
import { FaultyStorage } from "./storage/testing-faulty.ts";
import { MemoryStorage } from "./storage/testing-memory.ts";
import { addBlob, testPacks } from "./testing-packs.ts";
import { PASSWORD, TestArchive, repositoryFor, withRepository } from "./testing-archive.ts";

function coded(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code;
}

describe("polynomials", () => {
  test("isIrreducible accepts a known irreducible polynomial and refuses products", () => {
    assert.equal(isIrreducible(0x3da3358b4dc173n), true);
    assert.equal(isIrreducible(0x3da3358b4dc171n), false);
    assert.equal(isIrreducible(0x3da3358b4dc172n), false);
    assert.equal(isIrreducible(0b111n), false);
    // (x^2 + x + 1) times a polynomial of degree 51, with an odd number of terms and no root.
    let composite = 0n;
    const factor = (1n << 51n) | 0b11n;
    for (let i = 0n; i < 3n; i++) composite ^= factor << i;
    assert.equal(isIrreducible(composite), false);
  });

  test("random polynomials have degree 53", () => {
    for (let i = 0; i < 3; i++) assert.equal(randomPolynomial() >> 53n, 1n);
  });
});

describe("repository", () => {
  test("Repository.open throws the error of reading the key files, such as permission, if it can read none", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const second = await repository.addKey("second");
    const closed = new Set((await storage.list("keys")).map(({ name }) => name));
    const load = storage.load.bind(storage);
    storage.load = async (kind, name, range) => {
      if (!closed.has(name)) return load(kind, name, range);
      throw new CairnError("permission", `cannot read key ${name}`);
    };
    const refused = {
      code: "permission",
      message: /no key file of .* can be read: cannot read key/,
      hint: /right to read/,
    };
    await assert.rejects(Repository.open(storage, { password: PASSWORD }), refused);
    closed.delete(second);
    assert.equal((await Repository.open(storage, { password: "second" })).id, repository.id);
    const unknown = { code: "wrong_password", message: /other keys cannot be read: cannot read key/ };
    await assert.rejects(Repository.open(storage, { password: PASSWORD }), unknown);
  });

  test("Repository.open's error has a hint to restore a key file if the only one is damaged or missing", async (t) => {
    const { storage } = await repositoryFor(t);
    const [key] = await storage.list("keys");
    const load = storage.load.bind(storage);
    storage.load = async (kind, name, range) => {
      const bytes = await load(kind, name, range);
      return kind === "keys" ? bytes.subarray(1) : bytes;
    };
    const hint = /copy of a key file back into the repository's folder keys/;
    const open = async (): Promise<unknown> => Repository.open(storage, { password: PASSWORD });
    await assert.rejects(open, { code: "damaged", message: /no key file of .* can be read$/, hint });
    await storage.remove("keys", key!.name);
    await assert.rejects(open, { code: "damaged", message: /has no key files$/, hint });
  });

  test("a created repository opens by keys and by password, and refuses a wrong password", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const byKeys = await Repository.open(storage, { keys: repository.keys });
    const byPassword = await Repository.open(storage, { password: PASSWORD });
    assert.equal(byKeys.id, repository.id);
    assert.deepEqual(Buffer.from(byPassword.keys.encrypt), Buffer.from(repository.keys.encrypt));
    assert.equal(byPassword.chunkerPolynomial, repository.chunkerPolynomial);
    await assert.rejects(Repository.open(storage, { password: "wrong" }), coded("wrong_password"));
    await repository.addKey("second");
    assert.equal((await Repository.open(storage, { password: "second" })).id, repository.id);
    await assert.rejects(Repository.create(storage, { password: "x" }), coded("already_exists"));
  });

  test("Repository.open throws not_found without a config, and damaged for a damaged key file or config", async () => {
    await assert.rejects(Repository.open(new MemoryStorage(), { password: "x" }), coded("not_found"));
    await withRepository(async ({ repository, storage, path }) => {
      const [key] = readdirSync(join(path, "keys"));
      const bytes = readFileSync(join(path, "keys", key!));
      writeFileSync(join(path, "keys", key!), bytes.subarray(0, 100));
      await assert.rejects(Repository.open(storage, { password: PASSWORD }), coded("damaged"));
      await repository.addKey("other");
      assert.equal((await Repository.open(storage, { password: "other" })).id, repository.id);
      const config = readFileSync(join(path, "config"));
      config[40]! ^= 1;
      writeFileSync(join(path, "config"), config);
      await assert.rejects(Repository.open(storage, { keys: repository.keys }), coded("damaged"));
    });
  });

  test("Repository.create refuses a place with keys of a killed creation, unless replaceUnfinished is set", async () => {
    const storage = new MemoryStorage();
    await storage.save("keys", "ab".repeat(32), Buffer.from("{}"));
    await assert.rejects(Repository.create(storage, { password: "x" }), coded("already_exists"));
    const repository = await Repository.create(storage, { password: "x", replaceUnfinished: true });
    assert.equal((await storage.list("keys")).length, 1);
    assert.equal((await Repository.open(storage, { password: "x" })).id, repository.id);
  });

  test("Repository.open succeeds if a killed creation has left another key", async () => {
    const storage = new MemoryStorage();
    const other = new MemoryStorage();
    await Repository.create(other, { password: "x" });
    const [{ name }] = (await other.list("keys")) as unknown as [{ name: string }];
    const left = await other.load("keys", name);
    const repository = await Repository.create(storage, { password: "x" });
    await storage.save("keys", name, left);
    assert.equal((await Repository.open(storage, { password: "x" })).id, repository.id);
  });

  test("Repository.create throws already_exists for a place that has packs but no config", async () => {
    const storage = new MemoryStorage();
    await storage.save("keys", "ab".repeat(32), Buffer.from("{}"));
    await storage.save("data", "cd".repeat(32), Buffer.from("content"));
    await assert.rejects(
      Repository.create(storage, { password: "x", replaceUnfinished: true }),
      coded("already_exists"),
    );
    assert.deepEqual([(await storage.list("keys")).length, (await storage.list("data")).length], [1, 1]);
    // Its keys may be lost too.
    await storage.remove("keys", "ab".repeat(32));
    await assert.rejects(Repository.create(storage, { password: "x" }), coded("already_exists"));
    assert.deepEqual(await storage.list("keys"), []);
  });

  test("only one of several concurrent Repository.create calls succeeds, and only its key stays", async () => {
    const storage = new MemoryStorage();
    const create = async (): Promise<Repository> =>
      Repository.create(storage, { password: "x", replaceUnfinished: true });
    const settled = await Promise.allSettled([create(), create(), create()]);
    const won = settled.flatMap((each) => (each.status === "fulfilled" ? [each.value.id] : []));
    assert.equal(won.length, 1);
    assert.equal((await Repository.open(storage, { password: "x" })).id, won[0]);
    assert.equal((await storage.list("keys")).length, 1);
  });

  test("loadUnpacked returns the saved file, and throws damaged if the file was changed or truncated", async (t) => {
    const { repository, storage, path } = await repositoryFor(t);
    const json = Buffer.from(JSON.stringify({ packs: [], filler: randomBytes(300_000).toString("hex") }));
    const name = await repository.saveUnpacked("index", json);
    assert.deepEqual(Buffer.from(await repository.loadUnpacked("index", name)), json);
    const file = join(path, "index", name);
    const bytes = readFileSync(file);
    for (const at of [0, 20, bytes.length - 1]) {
      const copy = Buffer.from(bytes);
      copy[at]! ^= 4;
      writeFileSync(file, copy);
      await assert.rejects(repository.loadUnpacked("index", name), coded("damaged"));
    }
    writeFileSync(file, bytes.subarray(0, 10));
    await assert.rejects(repository.loadUnpacked("index", name), coded("damaged"));
    assert.equal((await storage.list("index")).length, 1);
  });

  test("listSnapshots returns the readable snapshots, and the names of damaged snapshots", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const first = await archive.save({ a: Buffer.from("one") });
    const second = await archive.save({ a: Buffer.from("two") });
    writeFileSync(join(fixture.path, "snapshots", second.snapshot), "nonsense");
    const { snapshots, damaged } = await fixture.repository.listSnapshots();
    assert.deepEqual(
      snapshots.map((s) => s.id),
      [first.snapshot],
    );
    assert.deepEqual(
      damaged.map((d) => d.name),
      [second.snapshot],
    );
  });

  test("listSnapshots that was aborted causes no unhandled rejection if a load fails later", async () => {
    const storage = new FaultyStorage(new MemoryStorage());
    const repository = await Repository.create(storage, { password: PASSWORD });
    await repository.saveUnpacked("snapshots", Buffer.from("{}"));
    storage.arm({ operation: "load", kind: "snapshots", fault: "fail" });
    await assert.rejects(repository.listSnapshots(AbortSignal.abort()), coded("interrupted"));
    // What nobody handles ends the process by then.
    await setImmediate();
    assert.equal(storage.calls.get("load snapshots"), 1);
  });
});

test("saveIndex sends an index file to a remote storage after its packs have arrived, and never if they do not", async () => {
  using packs = testPacks();
  const writer = packs.writer();
  addBlob(writer, Buffer.from("content"));
  writer.finish();
  const storage = new MemoryStorage();
  const repository = await Repository.create(storage, { password: PASSWORD });
  const { promise: arrived, resolve } = Promise.withResolvers<void>();
  const saving = repository.saveIndex(packs.packs, { after: arrived });
  for (let turn = 0; turn < 20; turn++) await setImmediate();
  assert.deepEqual(await storage.list("index"), []);
  resolve();
  const names = await saving;
  assert.deepEqual(
    (await storage.list("index")).map(({ name }) => name),
    names,
  );
  await assert.rejects(repository.saveIndex(packs.packs, { after: Promise.reject(new Error("a pack is lost")) }));
  assert.equal((await storage.list("index")).length, 1);
});
