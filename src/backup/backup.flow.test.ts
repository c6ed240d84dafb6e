import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import { CairnError } from "../errors.ts";
import type { CreateBackupOptions, RepositoryOptions } from "../contract/index.ts";
import { hasCode } from "../keep/testing-folder.ts";
import { OpenedRepository } from "../keep/opened-repository.ts";
import { backupScene, damagePack, SCHEMES, withManifest } from "./testing-far.ts";

for (const scheme of SCHEMES) {
  describe(`a repository on a ${scheme} storage`, () => {
    test("a restored point has the state digest that its snapshot was verified with", async (t) => {
      const { client, repository, folder, root, write } = await backupScene(t, scheme);
      const first = await client.createBackup(repository, { save: true, tags: ["one"] });
      const wanted = walkDigests(folder).state;
      write("a.txt", "changed\n");
      const second = await client.createBackup(repository, { save: true });
      assert.deepEqual([second.parent, second.added.data_blobs], [first.snapshot?.snapshot_id, 2]);
      assert.ok((await client.status()).last_backup!.at >= second.snapshot!.uploaded_at!);
      const verified = await repository.verify();
      assert.deepEqual([verified.problems, verified.checked.snapshots, verified.checked.digests], [[], 2, 2]);
      const target = join(root, "restored");
      const restored = await repository.restore(first.save_point_id, target);
      assert.deepEqual([restored.left_out, restored.proof?.state_digest], [[], wanted]);
      assert.equal(walkDigests(target).state, wanted);
      assert.equal(restored.proof?.metadata_equal, true);
      const { snapshots } = await repository.list({ tags: [["one"]] });
      assert.deepEqual(snapshots, [first.snapshot]);
    });

    test("restore writes only the chosen paths, and fails with not_found if one of them does not exist", async (t) => {
      const { client, repository, root } = await backupScene(t, scheme);
      await client.createBackup(repository, { save: true });
      const target = join(root, "restored");
      const { proof } = await repository.restore("latest", target, { paths: ["deep", "many/7"] });
      assert.deepEqual([proof, readdirSync(target).toSorted()], [null, ["deep", "many"]]);
      assert.deepEqual(readdirSync(join(target, "many")), ["7"]);
      const absent = repository.restore("latest", join(root, "other"), { paths: ["nowhere"] });
      await assert.rejects(absent, hasCode("not_found"));
      // A file has nothing below it, also where what is named lies beside it.
      const belowFile = repository.restore("latest", join(root, "other"), { paths: ["many/7/8"] });
      await assert.rejects(belowFile, hasCode("not_found"));
      await assert.rejects(repository.restore("latest", target), hasCode("already_exists"));
      assert.deepEqual(
        readdirSync(root).filter((name) => name.includes(".cairn-partial")),
        [],
      );
    });

    test("restore names the files with damaged content and writes all other files", async (t) => {
      const { client, repository, folder, root, place } = await backupScene(t, scheme);
      // Most of the pack, so that its middle is hit.
      writeFileSync(join(folder, "large"), randomBytes(100_000));
      const { snapshot } = await client.createBackup(repository, { save: true });
      damagePack(place, (size) => size >> 1, "largest");
      const { problems, checked } = await repository.verify();
      assert.equal(checked.digests, 0);
      const blob = problems.find(({ kind }) => kind === "blob_damaged");
      assert.ok(blob !== undefined && blob.losses.length > 0, JSON.stringify(problems));
      assert.equal(blob.losses[0]?.snapshot_id, snapshot?.snapshot_id);
      const target = join(root, "restored");
      const restored = await repository.restore("latest", target);
      const left = restored.left_out;
      assert.deepEqual([left.length, restored.proof], [1, null]);
      const lost = left[0]!.path;
      assert.ok(
        blob.losses.some(({ path }) => path.endsWith(lost)),
        `${lost} was named`,
      );
      assert.ok(!existsSync(join(target, lost)) && existsSync(join(target, "many")));
      assert.deepEqual((await repository.verify({ quick: true })).problems, []);
    });

    test("restore leaves out only the files whose content was in a missing pack", async (t) => {
      const { client, repository, folder, root, place } = await backupScene(t, scheme);
      await client.createBackup(repository, { save: true });
      writeFileSync(join(folder, "large"), randomBytes(100_000));
      await client.createBackup(repository, { save: true });
      const pack = damagePack(place, () => 20, "largest");
      rmSync(join(place, "data", pack.slice(0, 2), pack));
      const target = join(root, "restored");
      const { left_out: left, proof } = await repository.restore("latest", target);
      assert.ok(left.some(({ path, reason }) => path === "large" && reason === "damaged"));
      assert.deepEqual(
        [proof, existsSync(join(target, "large")), readdirSync(join(target, "many")).length],
        [null, false, 50],
      );
    });

    test("verify names a damaged snapshot even if the local cache has an intact copy of it", async (t) => {
      const { client, repository, place } = await backupScene(t, scheme);
      const { snapshot } = await client.createBackup(repository, { save: true });
      assert.equal((await repository.list()).snapshots.length, 1);
      writeFileSync(join(place, "snapshots", snapshot!.snapshot_id), "nonsense");
      const { problems } = await repository.verify({ quick: true });
      assert.deepEqual(
        problems.filter(({ severity }) => severity === "damage").map(({ kind, object }) => [kind, object]),
        [["snapshot_damaged", snapshot!.snapshot_id]],
      );
    });

    test("a quick verify finds a missing pack without reading other packs", async (t) => {
      const { client, repository, place } = await backupScene(t, scheme);
      await client.createBackup(repository, { save: true });
      const pack = damagePack(place, () => 20, "largest");
      rmSync(join(place, "data", pack.slice(0, 2), pack));
      const { problems } = await repository.verify({ quick: true });
      const found = problems.find(({ kind }) => kind === "pack_missing");
      assert.deepEqual([found?.object, (found?.losses.length ?? 0) > 0], [pack, true]);
    });
  });
}

test("createBackup warns if the backup is empty", async (t) => {
  const { client, repository, folder } = await backupScene(t, "local");
  const warningsOf = async (options: CreateBackupOptions): Promise<string[]> => {
    const warnings: string[] = [];
    await client.createBackup(repository, { save: true, ...options, onWarning: (each) => void warnings.push(each) });
    return warnings.filter((each) => each.includes("is empty"));
  };
  assert.deepEqual(await warningsOf({}), []);
  assert.deepEqual(await warningsOf({ exclude: ["/*"] }), [
    `the backup of ${folder} is empty: ignore rules leave out everything in it`,
  ]);
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
  assert.deepEqual(await warningsOf({}), [`the backup of ${folder} is empty: is its disk mounted?`]);
});

test("createBackup fails and writes no index if its lock was removed meanwhile", async (t) => {
  const { client, repository, place } = await backupScene(t, "local");
  await client.save();
  const cut = client.createBackup(repository, {
    onProgress: ({ phase }) => {
      if (phase !== "uploading") return;
      for (const name of readdirSync(join(place, "locks"))) rmSync(join(place, "locks", name));
    },
  });
  await assert.rejects(cut, hasCode("busy"));
  assert.deepEqual(readdirSync(join(place, "index")), []);
  await client.createBackup(repository);
  assert.deepEqual(
    (await repository.verify()).problems.filter(({ severity }) => severity === "damage"),
    [],
  );
});

test("createBackup on several threads can be stopped, and the next call completes the backup", async (t) => {
  const { client, repository, folder, place, root } = await backupScene(t, "local");
  for (let i = 0; i < 4; i++) writeFileSync(join(folder, `large-${i}`), randomBytes(9 << 20));
  await client.save();
  const stop = new AbortController();
  const stopped = client.createBackup(repository, {
    signal: stop.signal,
    onProgress: ({ phase }) => {
      if (phase === "uploading") setImmediate(() => stop.abort());
    },
  });
  await assert.rejects(stopped, hasCode("interrupted"));
  assert.equal((await repository.list()).snapshots.length, 0);
  const unfinished = readdirSync(join(place, "tmp"), { recursive: true, encoding: "utf8" });
  assert.deepEqual(
    unfinished.filter((name) => /pack-|file-/.test(name)),
    [],
  );
  const { added } = await client.createBackup(repository);
  assert.ok(added.bytes > 36 << 20, `${added.bytes} bytes`);
  assert.deepEqual(
    (await repository.verify()).problems.filter(({ severity }) => severity === "damage"),
    [],
  );
  const { proof } = await repository.restore("latest", join(root, "restored"));
  assert.equal(proof?.state_digest, walkDigests(folder).state);
});

test("createBackup on several threads writes no snapshot if the workspace's own store is damaged", async (t) => {
  const { client, repository, folder } = await backupScene(t, "local");
  for (let i = 0; i < 3; i++) writeFileSync(join(folder, `large-${i}`), randomBytes(9 << 20));
  await client.save();
  const pack = damagePack(join(client.controlDirectory, "store"), (size) => size >> 1, "largest");
  await assert.rejects(client.createBackup(repository), (error) => {
    assert.ok(hasCode("damaged")(error));
    assert.match(String((error as Error).message), new RegExp(pack.slice(0, 12)));
    return true;
  });
  assert.equal((await repository.list()).snapshots.length, 0);
});

test("verifying all subsets 1/3 to 3/3 reads each pack exactly once", async (t) => {
  const { client, repository, write } = await backupScene(t, "local");
  for (let i = 0; i < 5; i++) {
    write("a.txt", `round ${i}`);
    await client.createBackup(repository, { save: true });
  }
  const { checked } = await repository.verify();
  assert.equal(checked.bytes, (await repository.stats()).pack_bytes);
  let packs = 0;
  for (const part of [1, 2, 3]) packs += (await repository.verify({ subset: { part, of: 3 } })).checked.packs;
  assert.equal(packs, checked.packs);
  assert.ok((await repository.verify({ snapshots: ["latest"] })).checked.packs < checked.packs);
  await assert.rejects(repository.verify({ snapshots: ["ffffffff"] }), hasCode("not_found"));
});

test("verifyReceipt accepts a signed receipt and refuses a changed one", async (t) => {
  const { client, repository, library, root } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  const file = join(root, "receipt.json");
  const { proof } = await repository.restore("latest", join(root, "one"), { receipt: file });
  assert.equal(proof?.receipt, file);
  const first = await library.verifyReceipt(file);
  assert.deepEqual([first.trusted, first.receipt["previous"]], [true, null]);
  assert.equal(first.receipt["state_digest"], proof?.state_digest);
  assert.equal((await library.verifyReceipt(file, { key: first.public_key })).trusted, true);
  const next = await repository.restore("latest", join(root, "two"));
  assert.equal((await library.verifyReceipt(next.proof!.receipt!)).receipt["previous"], first.sha256);
  const other = Buffer.alloc(32, 1).toString("base64");
  await assert.rejects(library.verifyReceipt(file, { key: other }), hasCode("conflict"));
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  assert.equal((await library.verifyReceipt(file, { onWarning })).trusted, true);
  assert.deepEqual(warnings, []);
  const state = process.env["XDG_STATE_HOME"];
  t.after(() => (process.env["XDG_STATE_HOME"] = state));
  process.env["XDG_STATE_HOME"] = join(root, "another-user");
  assert.equal((await library.verifyReceipt(file, { onWarning })).trusted, false);
  assert.match(warnings.join("\n"), /receipt\.json is signed by an unknown key/);
  process.env["XDG_STATE_HOME"] = state;
  const text = readFileSync(file, "utf8");
  const body = JSON.parse(text) as { body_b64: string };
  const changed = Buffer.from(body.body_b64, "base64").toString().replace(proof!.state_digest, "0".repeat(64));
  writeFileSync(file, JSON.stringify({ ...body, body_b64: Buffer.from(changed).toString("base64") }));
  await assert.rejects(library.verifyReceipt(file), hasCode("damaged"));
  writeFileSync(file, "no receipt");
  await assert.rejects(library.verifyReceipt(file), {
    code: "damaged",
    message: `${file}: receipt: not valid JSON in UTF-8`,
  });
});

test("openRepository refuses a wrong password", async (t) => {
  const { library, options } = await backupScene(t, "local");
  await assert.rejects(library.openRepository({ ...options, password: "wrong" }), hasCode("wrong_password"));
  await assert.rejects(library.openRepository({ ...options, password: "" }), hasCode("usage"));
  await assert.rejects(library.openRepository({ ...options, repository: "gopher:x" }), hasCode("usage"));
  await assert.rejects(library.initRepository(options), hasCode("already_exists"));
});

test("openRepository proposes `backup init` only for an empty folder, and reports a lost config as damage", async (t) => {
  const { library, client, repository, options, place, root } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  const failureOf = async (asked: Partial<RepositoryOptions>): Promise<CairnError> => {
    try {
      await library.openRepository({ ...options, ...asked });
    } catch (error) {
      return error as CairnError;
    }
    throw new Error("it opened");
  };
  const lost = new CairnError("not_found", "no such password file");
  assert.equal((await failureOf({ password: async () => Promise.reject(lost) })).hint, undefined);
  renameSync(join(place, "keys"), join(place, "aside"));
  const { code: codeOfKeys, message: ofKeys } = await failureOf({});
  assert.deepEqual([codeOfKeys, ofKeys.endsWith("has no key files")], ["damaged", true], ofKeys);
  renameSync(join(place, "aside"), join(place, "keys"));
  rmSync(join(place, "config"));
  const assertLost = async (): Promise<void> => {
    const { code, message } = await failureOf({});
    assert.equal(code, "damaged");
    assert.match(message, /the config of .* is lost/);
  };
  await assertLost();
  rmSync(join(place, "snapshots"), { recursive: true });
  await assertLost();
  mkdirSync(join(root, "empty"));
  const { code, hint } = await failureOf({ repository: `local:${root}/empty` });
  assert.equal(code, "not_found");
  // The hint alone would make a second one below a disk that is not mounted.
  assert.match(hint!, /mounted\. To create a repository there: `cairn backup init -r/);
});

test("verify reports an invalid manifest as damage, but the manifest of a newer version only as a note", async (t) => {
  const { client, repository } = await backupScene(t, "local");
  assert.ok(repository instanceof OpenedRepository);
  const { snapshot } = await client.createBackup(repository, { save: true });
  const edited = async (change: (manifest: string) => string): Promise<string> =>
    withManifest(repository, snapshot!.snapshot_id, change);
  const newer = await edited((text) => text.replace('"minimum_reader":1', '"minimum_reader":2'));
  const undecodable = await edited((text) => text.replace('"complete":true', '"complete":"perhaps"'));
  const { problems, checked } = await repository.verify();
  const seen = problems
    .filter(({ kind }) => kind !== "pack_unindexed")
    .map(({ kind, object, severity, losses }) => [kind, object, severity, losses.map((loss) => loss.snapshot_id)]);
  assert.deepEqual(
    seen.toSorted(),
    [
      ["digest_unverified", newer, "note", []],
      ["digest_unverified", undecodable, "damage", [undecodable]],
    ].toSorted(),
  );
  assert.match(problems.find(({ object }) => object === newer)!.detail, /not verified.*minimum_reader 2/);
  assert.deepEqual([checked.snapshots, checked.digests], [3, 1]);
});

test("createBackup saves changes first, and with `save: false` warns of unsaved changes", async (t) => {
  const { client, repository, write } = await backupScene(t, "local");
  write("file", "first");
  await client.save();
  write("file", "second");
  const whole = await client.createBackup(repository);
  assert.equal((await client.status()).clean, true);
  assert.equal((await client.history()).head, whole.save_point_id);
  write("file", "third");
  const warnings: string[] = [];
  const other = await client.createBackup(repository, { save: false, onWarning: (each) => void warnings.push(each) });
  assert.equal(other.save_point_id, whole.save_point_id);
  assert.deepEqual(warnings, ["not in the backup, because these changes were not saved: 1 modified"]);
  await client.save();
  const { last_backup: last } = await client.status();
  assert.deepEqual([last?.save_point_id, last?.saved_since], [whole.save_point_id, 1]);
});
