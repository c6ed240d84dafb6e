import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { EmbeddedStore } from "../store/embedded-store.ts";
import { rightsCount, runWithoutCapabilities } from "../store/testing-rights.ts";
import { CairnError } from "../../errors.ts";
import { acquireLock } from "../../fs/lock.ts";
import { objectIdOf } from "../../ids.ts";
import type { DoctorResult, Finding } from "../../contract/index.ts";
import { type TestFolder, testFolder } from "../../keep/testing-folder.ts";

interface Scene extends TestFolder {
  control: string;
  store: string;
  /** of the points, oldest first */
  ids: string[];
}

const FIRST = "only in the first point\n".repeat(300);

/** Two points; the folder has the content of the second. */
async function scene(t: TestContext): Promise<Scene> {
  const folder = await testFolder(t, { "only-first": FIRST, "dir/both": "both\n".repeat(300) });
  const first = await folder.client.save({ message: "first" });
  fs.rmSync(path.join(folder.folder, "only-first"));
  folder.write("dir/new", "second\n".repeat(300));
  const second = await folder.client.save({ message: "second", tags: ["t"] });
  const control = folder.client.controlDirectory;
  return { ...folder, control, store: path.join(control, "store"), ids: [first.save_point_id, second.save_point_id] };
}

function kinds(result: DoctorResult): string[] {
  return [...new Set(result.findings.map(({ kind }) => kind))].toSorted();
}

function assertWell({ healthy, findings }: DoctorResult): void {
  assert.deepEqual({ healthy, findings }, { healthy: true, findings: [] });
}

function unmended(result: DoctorResult): Finding[] {
  return result.findings.filter((finding) => finding.repaired !== true);
}

function pointFile({ control }: Scene, sequence: number, name = "descriptor.json"): string {
  return path.join(control, "workspaces/main/points", String(sequence).padStart(10, "0"), name);
}

function files(folder: string): string[] {
  return fs
    .readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => path.join(folder, name))
    .filter((file) => fs.statSync(file).isFile());
}

function overwrite(file: string, bytes: string | Uint8Array): void {
  fs.chmodSync(file, 0o600);
  fs.writeFileSync(file, bytes);
}

async function placeOf({ control }: Scene, content: string): Promise<{ file: string; offset: number }> {
  const store = await EmbeddedStore.open(control);
  const place = store.index.place(store.index.lookup(createHash("sha256").update(content).digest(), 0));
  store.close();
  return { file: store.storage.localPath("data", objectIdOf(place.pack)), offset: place.offset };
}

function flip(file: string, at: number): void {
  const bytes = fs.readFileSync(file);
  bytes[at < 0 ? bytes.length + at : at]! ^= 1;
  overwrite(file, bytes);
}

const restic = spawnSync("restic", ["version"]).status === 0;

/** Fails unless restic finds nothing to complain about. */
function resticAgrees({ control, store }: Scene): void {
  if (!restic) return;
  execFileSync(
    "restic",
    ["-r", store, "--password-file", path.join(control, "store-password"), "--no-cache", "check", "--read-data"],
    { stdio: "pipe" },
  );
}

/** Examines, mends, examines again; the findings of the first look and what a later one still finds. */
async function mend(of: Scene): Promise<{ found: DoctorResult; repaired: DoctorResult; left: DoctorResult }> {
  const found = await of.client.doctor();
  const before = files(of.control)
    .filter((file) => !file.includes("/cache/"))
    .map((file) => [file, fs.readFileSync(file).toString("latin1")]);
  assert.deepEqual(await of.client.doctor(), found, "looking changes nothing");
  assert.deepEqual(
    before,
    files(of.control)
      .filter((file) => !file.includes("/cache/"))
      .map((file) => [file, fs.readFileSync(file).toString("latin1")]),
  );
  const repaired = await of.client.doctor({ repair: true });
  return { found, repaired, left: await of.client.doctor() };
}

async function allPointsAreWell(of: Scene): Promise<void> {
  assert.deepEqual((await of.client.verifyAll()).problems, []);
  assert.deepEqual(
    (await of.client.history(undefined, 0, { all: true })).save_points.map((point) => point.save_point_id),
    of.ids.toReversed(),
  );
  resticAgrees(of);
}

void describe("doctor", () => {
  test("doctor finds and repairs nothing in a healthy workspace", async (t) => {
    const of = await scene(t);
    assertWell(await of.client.doctor());
    assertWell(await of.client.doctor({ repair: true }));
    await allPointsAreWell(of);
  });

  for (const [what, damage, expected] of [
    ["the store-key file is damaged", (of) => overwrite(path.join(of.control, "store-key"), "nonsense"), ["key"]],
    [
      "the store-key file belongs to another store",
      (of) => overwrite(path.join(of.control, "store-key"), otherKeys()),
      ["key"],
    ],
    ["the password file is missing", (of) => fs.rmSync(path.join(of.control, "store-password")), ["password"]],
    ["the password file is empty", (of) => overwrite(path.join(of.control, "store-password"), ""), ["password"]],
    ["the password is wrong", (of) => overwrite(path.join(of.control, "store-password"), "wrong\n"), ["password"]],
    [
      "the repository's key file is damaged",
      (of) => overwrite(files(path.join(of.store, "keys"))[0]!, "{}"),
      ["key", "password"],
    ],
    ["the repository's key file is missing", (of) => fs.rmSync(files(path.join(of.store, "keys"))[0]!), ["password"]],
    ["the store's config is missing", (of) => fs.rmSync(path.join(of.store, "config")), ["config"]],
    ["the store's config is damaged", (of) => flip(path.join(of.store, "config"), 30), ["config"]],
    ["an index file is damaged", (of) => flip(files(path.join(of.store, "index"))[0]!, 30), ["content", "index"]],
    [
      "all index files are missing",
      (of) => files(path.join(of.store, "index")).forEach((file) => fs.rmSync(file)),
      ["content", "index"],
    ],
    ["a snapshot is missing", (of) => fs.rmSync(files(path.join(of.store, "snapshots"))[0]!), ["snapshot"]],
    ["a snapshot is damaged", (of) => flip(files(path.join(of.store, "snapshots"))[0]!, 30), ["snapshot"]],
    [
      "a pack is in no index",
      (of) => fs.writeFileSync(path.join(of.store, "data/ab", "ab".repeat(32)), randomBytes(100)),
      ["leftovers"],
    ],
    ["state.json is missing", (of) => fs.rmSync(path.join(of.control, "workspaces/main/state.json")), ["state"]],
    ["state.json is damaged", (of) => overwrite(path.join(of.control, "workspaces/main/state.json"), "{"), ["state"]],
    [
      "a cache is damaged",
      (of) => files(path.join(of.control, "cache")).forEach((file) => overwrite(file, "nonsense")),
      ["cache"],
    ],
    ["other users may list the control directory", (of) => fs.chmodSync(of.control, 0o755), ["permissions"]],
    [
      "other users may read the store-key file",
      (of) => fs.chmodSync(path.join(of.control, "store-key"), 0o644),
      ["permissions"],
    ],
    [
      "a dead process left a temporary folder",
      (of) => fs.mkdirSync(path.join(of.control, "tmp", `work-${"0".repeat(8)}-999999-1-0-0`)),
      [],
    ],
    [
      "a record of a verification is damaged",
      (of) => fs.writeFileSync(pointFile(of, 1, "verification.json"), "{"),
      ["verification"],
    ],
    ["a pin is damaged", (of) => fs.writeFileSync(pointFile(of, 1, "pin.json"), "{"), ["pin"]],
    ["edited tags are damaged", (of) => fs.writeFileSync(pointFile(of, 2, "tags.json"), "{"), ["tags"]],
    [
      "the folder was replaced by a copy",
      (of) =>
        fs.cpSync(of.folder, `${of.folder}2`, { recursive: true, preserveTimestamps: true }) ??
        (fs.rmSync(of.folder, { recursive: true }), fs.renameSync(`${of.folder}2`, of.folder)),
      ["folder"],
    ],
  ] satisfies [string, (of: Scene) => unknown, string[]][]) {
    test(`doctor leaves a healthy workspace if ${what}`, async (t) => {
      const of = await scene(t);
      damage(of);
      const { found, repaired, left } = await mend(of);
      assert.deepEqual(kinds(found), expected, JSON.stringify(found.findings));
      for (const finding of found.findings) assert.ok(finding.repair !== undefined, JSON.stringify(finding));
      assert.deepEqual(unmended(repaired), []);
      assert.equal(repaired.healthy, true);
      assertWell(left);
      await allPointsAreWell(of);
      of.write("after", "after");
      assert.equal((await of.client.save()).unchanged, false);
      if (what !== "a pin is damaged") return;
      assert.equal((await of.client.resolve(of.ids[0]!)).pinned, true);
    });
  }

  test("doctor rebuilds a damaged descriptor from its snapshot", async (t) => {
    const of = await scene(t);
    const before = await of.client.resolve(of.ids[0]!);
    overwrite(pointFile(of, 1), "{}");
    fs.rmSync(path.join(of.control, "cache"), { recursive: true });
    const { found, left } = await mend(of);
    assert.deepEqual(kinds(found), ["descriptor"]);
    assertWell(left);
    const after = await of.client.resolve(of.ids[0]!);
    assert.deepEqual(
      [after.save_point_id, after.payload_root_hash, after.metadata_digest, after.entries, after.bytes],
      [before.save_point_id, before.payload_root_hash, before.metadata_digest, before.entries, before.bytes],
    );
    assert.equal(after.cause.kind, "doctor");
    await allPointsAreWell(of);
    await of.client.restore({ target: of.ids[0]! });
    assert.equal(fs.readFileSync(path.join(of.folder, "only-first"), "utf8"), FIRST);
  });

  test("doctor rebuilds a descriptor with its ignore rules, so that a restore keeps ignored files", async (t) => {
    const of = await scene(t);
    of.write(".cairnignore", "*.key\n");
    fs.mkdirSync(path.join(of.folder, "sub/build"), { recursive: true });
    of.write("sub/.cairnignore", "build/\n");
    of.ids.push((await of.client.save()).save_point_id);
    const sequence = of.ids.length;
    const ruleFiles = (): unknown => JSON.parse(fs.readFileSync(pointFile(of, sequence), "utf8")).rules.files;
    const before = ruleFiles();
    for (const name of ["my.key", "sub/build/made"]) of.write(name, "ignored");
    of.write("later", "later");
    overwrite(pointFile(of, sequence), "{}");
    const { found, left } = await mend(of);
    assert.deepEqual(kinds(found), ["descriptor"]);
    assertWell(left);
    assert.deepEqual(ruleFiles(), before);
    await of.client.restore({ target: of.ids.at(-1)! });
    assert.deepEqual(
      ["later", "my.key", "sub/build/made"].map((name) => fs.existsSync(path.join(of.folder, name))),
      [false, true, true],
    );
  });

  test("doctor rebuilds a descriptor that was its point's only file, also after a later save", async (t) => {
    const of = await scene(t);
    fs.rmSync(pointFile(of, 1));
    assert.deepEqual(fs.readdirSync(path.dirname(pointFile(of, 1))), []);
    const { damaged } = await of.client.history();
    assert.deepEqual(
      damaged.map((point) => point.save_point_id),
      [of.ids[0]],
    );
    of.write("later", "later");
    of.ids.push((await of.client.save()).save_point_id);
    const { found, left } = await mend(of);
    assert.deepEqual(kinds(found), ["descriptor"]);
    assertWell(left);
    await allPointsAreWell(of);
  });

  test("doctor removes a snapshot whose point is missing", async (t) => {
    const of = await scene(t);
    fs.rmSync(path.dirname(pointFile(of, 1)), { recursive: true });
    const { found, repaired, left } = await mend(of);
    assert.deepEqual(kinds(found), ["orphan-snapshot"]);
    assert.deepEqual(unmended(repaired), []);
    assert.deepEqual(left.findings, []);
    assert.equal(files(path.join(of.store, "snapshots")).length, 1);
    resticAgrees(of);
  });

  for (const [what, damage] of [
    ["missing", (file: string) => fs.rmSync(file)],
    ["cut", (file: string) => overwrite(file, fs.readFileSync(file).subarray(0, 20))],
  ] as const) {
    test(`doctor names the lost content if a pack is ${what}, and the next save stores content again that the folder has`, async (t) => {
      const of = await scene(t);
      const second = await placeOf(of, "second\n".repeat(300));
      damage(second.file);
      const { found, repaired } = await mend(of);
      assert.ok(
        found.findings.some(({ kind, severity }) => kind === "pack" && severity === "damage"),
        JSON.stringify(found.findings),
      );
      assert.ok(
        found.findings.some(
          ({ kind, detail }) => kind === "content" && detail.includes(`${of.ids[1]!.slice(0, 8)}: dir/new`),
        ),
        JSON.stringify(found.findings),
      );
      assert.ok(!found.findings.some(({ detail }) => detail.includes(of.ids[0]!.slice(0, 8))));
      assert.equal(repaired.healthy, false);
      assert.deepEqual((await of.client.verify(of.ids[0]!)).problems, []);
      assert.ok((await of.client.verify(of.ids[1]!)).problems.some((problem) => problem.path === "dir/new"));
      await of.client.save({ message: "again" });
      assert.deepEqual((await of.client.verifyAll()).problems, []);
      assertWell(await of.client.doctor());
      resticAgrees(of);
    });
  }

  test("doctor reports content that verify found damaged until a save with reread stores the content again", async (t) => {
    const of = await scene(t);
    const { file, offset } = await placeOf(of, "both\n".repeat(300));
    flip(file, offset + 20);
    assert.deepEqual((await of.client.doctor()).findings, []);
    await of.client.verifyAll();
    const found = await of.client.doctor();
    assert.deepEqual(kinds(found), ["content", "pack"]);
    const repaired = await of.client.doctor({ repair: true });
    assert.equal(repaired.healthy, false);
    assert.ok(
      repaired.findings.some(({ detail }) => detail.includes("dir/both")),
      JSON.stringify(repaired.findings),
    );
    // What is left is lost: no repair is offered once more, neither now nor after another look.
    for (const verified of [false, true]) {
      if (verified) assert.match((await of.client.verifyAll()).problems[0]!.hint, /^run `cairn doctor`/);
      const left = await of.client.doctor();
      assert.ok(left.findings.length > 0 && left.findings.every(({ repair }) => repair === undefined));
    }
    await of.client.save({ reread: true });
    await of.client.verifyAll();
    assertWell(await of.client.doctor());
    await of.client.restore({ target: of.ids[0]! });
    assert.equal(fs.readFileSync(path.join(of.folder, "only-first"), "utf8"), FIRST);
    resticAgrees(of);
  });

  test("doctor repairs a damaged pack header without losing content", async (t) => {
    const of = await scene(t);
    flip((await placeOf(of, FIRST)).file, -30);
    assert.ok((await of.client.verifyAll()).problems.every((problem) => problem.point === null));
    const { found, repaired, left } = await mend(of);
    assert.deepEqual(kinds(found), ["pack"]);
    assert.deepEqual(unmended(repaired), []);
    assertWell(left);
    await allPointsAreWell(of);
  });

  test("doctor creates empty folders that a copy of the control directory lacks", async (t) => {
    const of = await scene(t);
    const folders = ["workspaces/main/journal", "store/locks"].map((name) => path.join(of.control, name));
    for (const folder of folders) fs.rmSync(folder, { recursive: true });
    const { found, repaired, left } = await mend(of);
    assert.deepEqual([kinds(found), found.healthy], [["missing"], false]);
    assert.deepEqual(unmended(repaired), []);
    assertWell(left);
    await of.client.restore({ target: of.ids[0]! });
    assert.equal(fs.readFileSync(path.join(of.folder, "only-first"), "utf8"), FIRST);
  });

  for (const name of ["data", "index", "snapshots", "keys"]) {
    test(`doctor reports that the store's folder ${name} is missing, and a save works after the repair`, async (t) => {
      const of = await scene(t);
      fs.rmSync(path.join(of.store, name), { recursive: true });
      const { found } = await mend(of);
      assert.deepEqual([kinds(found), found.healthy], [["missing"], false]);
      await of.client.save({ message: "again" });
    });
  }

  for (const [how, put] of [
    ["is gone", () => undefined],
    ["is a file", (points: string) => fs.writeFileSync(points, "")],
  ] as const) {
    test(`doctor fails if the folder of points ${how}, and finds the workspace healthy once the folder is back`, async (t) => {
      const of = await scene(t);
      const points = path.join(of.control, "workspaces/main/points");
      fs.renameSync(points, `${points}.aside`);
      put(points);
      for (const call of [
        async () => of.client.doctor({ repair: true }),
        async () => of.client.save(),
        async () => of.client.history(),
        async () => of.client.previewCleanup({ retention: { keepLast: 1 } }),
      ])
        await assert.rejects(call(), { code: "damaged", hint: /^put the folder back from a copy/ });
      fs.rmSync(points, { force: true });
      fs.renameSync(`${points}.aside`, points);
      assertWell(await of.client.doctor());
      await allPointsAreWell(of);
    });
  }

  test("doctor reports no interrupted command while a process holds the workspace's lock", async (t) => {
    const of = await scene(t);
    const claim = pointFile(of, 3, "intent");
    fs.mkdirSync(path.dirname(claim));
    fs.writeFileSync(claim, "0".repeat(32));
    const lock = await acquireLock(path.join(of.control, "workspaces/main/lock"), { purpose: "save" });
    const during = await of.client.doctor();
    lock.release();
    assert.deepEqual([kinds(during), kinds(await of.client.doctor())], [[], ["interrupted"]]);
  });

  test("doctor does not change records of a newer version", async (t) => {
    const of = await scene(t);
    await of.client.pin(of.ids[0]!);
    const records = [path.join(of.control, "workspaces/main/state.json"), pointFile(of, 1, "pin.json")];
    const texts = records.map((file) => fs.readFileSync(file, "utf8").replace(/"version": ?\d/, '"version":99'));
    for (const [at, file] of records.entries()) overwrite(file, texts[at]!);
    const repaired = await of.client.doctor({ repair: true });
    assert.deepEqual(
      unmended(repaired).map(({ kind }) => kind),
      ["state", "pin"],
    );
    assert.deepEqual(
      records.map((file) => fs.readFileSync(file, "utf8")),
      texts,
    );
  });

  test("doctor only warns of records that this user may not read, and does not change them", async (t) => {
    if (!rightsCount()) {
      if (!runWithoutCapabilities(fileURLToPath(import.meta.url), "records that this user may not read"))
        t.skip("setpriv is missing");
      return;
    }
    const of = await scene(t);
    await of.client.pin(of.ids[1]!);
    const records = [
      path.join(of.control, "workspaces/main/state.json"),
      pointFile(of, 1),
      pointFile(of, 2, "pin.json"),
    ];
    const before = records.map((file) => fs.readFileSync(file, "utf8"));
    for (const file of records) fs.chmodSync(file, 0);
    const repaired = await of.client.doctor({ repair: true });
    for (const file of records) fs.chmodSync(file, 0o600);
    assert.deepEqual(
      unmended(repaired).map(({ kind, severity }) => [kind, severity]),
      [
        ["state", "warning"],
        ["pin", "warning"],
        ["descriptor", "warning"],
      ],
    );
    assert.match(unmended(repaired).at(-1)!.detail, new RegExp(`^save point ${of.ids[0]!.slice(0, 8)}: `));
    assert.deepEqual(
      records.map((file) => fs.readFileSync(file, "utf8")),
      before,
    );
  });

  test("doctor does not change a journal of a newer version", async (t) => {
    const of = await scene(t);
    const journal = path.join(of.control, "workspaces/main/journal");
    const staging = path.join(of.control, "tmp", `.cairn-restore-${"c".repeat(16)}`);
    fs.mkdirSync(staging, { recursive: true });
    const record = path.join(journal, "exchange.json");
    fs.writeFileSync(record, '{"format":"cairn.unfinished","version":2}\n');
    const repaired = await of.client.doctor({ repair: true });
    assert.deepEqual([kinds(repaired), repaired.healthy], [["journal"], false]);
    assert.equal(fs.readFileSync(record, "utf8"), '{"format":"cairn.unfinished","version":2}\n');
    assert.ok(fs.existsSync(staging));
    await assert.rejects(of.client.save(), (error) => error instanceof CairnError && error.code === "newer_version");
  });

  test("doctor reports a deleted folder and names the restore that brings the folder back", async (t) => {
    const of = await scene(t);
    fs.rmSync(of.folder, { recursive: true });
    const result = await of.client.doctor({ repair: true });
    assert.deepEqual(kinds(result), ["folder"]);
    assert.equal(result.healthy, false);
    assert.match(result.findings[0]!.detail, /restore latest/);
    await of.client.restore({ target: "latest" });
    assertWell(await of.client.doctor());
  });

  test("doctor records a replaced folder and drops the recorded facts of the former folder", async (t) => {
    const of = await scene(t);
    const file = path.join(of.control, "workspaces/main/workspace.json");
    const recorded = JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, unknown>;
    const stale = { root_inode: "1", filesystem_uuid: "of the disk before", mount_path: { path: "where/it/lay" } };
    overwrite(file, JSON.stringify({ ...recorded, ...stale, later: 1 }));
    assert.deepEqual(unmended(await of.client.doctor({ repair: true })), []);
    const mended = JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, unknown>;
    assert.deepEqual(mended, { ...recorded, later: 1 });
  });

  test("doctor reports nothing about a self-contained workspace that was copied from another host", async (t) => {
    const { root, library } = await testFolder(t);
    const client = await library.init(path.join(root, "whole"), { selfContained: true });
    await client.save();
    const file = path.join(client.controlDirectory, "workspaces/main/workspace.json");
    const recorded = JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, unknown>;
    overwrite(file, JSON.stringify({ ...recorded, root_inode: "1" }));
    assert.deepEqual((await client.doctor()).findings, []);
  });

  test("doctor registers a folder again that the registry has lost", async (t) => {
    const of = await scene(t);
    fs.rmSync(path.join(of.root, "state/cairn/workspaces"), { recursive: true });
    const found = await of.client.doctor();
    const inRegistry = path.dirname(of.control).endsWith("workspaces") || kinds(found).includes("registry");
    assert.ok(inRegistry, JSON.stringify(found));
    assert.deepEqual(unmended(await of.client.doctor({ repair: true })), []);
    assert.equal((await of.library.open(of.folder)).workspace.id, of.client.workspace.id);
  });

  test("doctor reports a lost key if both the store-key file and the password are missing", async (t) => {
    const of = await scene(t);
    fs.rmSync(path.join(of.control, "store-key"));
    fs.rmSync(path.join(of.control, "store-password"));
    const result = await of.client.doctor({ repair: true });
    assert.deepEqual([kinds(result), result.healthy], [["key"], false]);
  });
});

function otherKeys(): string {
  const random = (length: number): string => randomBytes(length).toString("base64");
  return JSON.stringify({ mac: { k: random(16), r: random(16) }, encrypt: random(32) });
}
