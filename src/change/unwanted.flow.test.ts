import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { backupScene } from "../backup/testing-far.ts";
import type { LeftOut, SaveOptions } from "../contract/index.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

/** What a save leaves out by what it finds: caches, folders with some file, large files. */

const SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55";
const hasRestic = spawnSync("restic", ["version"]).error === undefined;

function raw(root: string, path: string, text: string): void {
  const place = Buffer.from(`${root}/${path}`, "latin1");
  fs.mkdirSync(place.subarray(0, place.lastIndexOf("/")), { recursive: true });
  fs.writeFileSync(place, text);
}

/** All paths below a folder, in latin1. */
function namesIn(root: string, below = Buffer.alloc(0)): string[] {
  const place = Buffer.concat([Buffer.from(`${root}/`), below]);
  return fs
    .readdirSync(place, { withFileTypes: true, encoding: "buffer" })
    .flatMap((entry) => {
      const own = Buffer.concat([below, entry.name]);
      const inside = entry.isDirectory() ? namesIn(root, Buffer.concat([own, Buffer.from("/")])) : [];
      return [own.toString("latin1"), ...inside];
    })
    .toSorted();
}

function said({ left_out: left }: { left_out: LeftOut[] }): [string, string][] {
  return left.map(({ path, reason }) => [path, reason]);
}

test("a restore keeps caches and large files that the point's save left out", async (t) => {
  const { client, folder, root, write } = await testFolder(t, {
    "target/CACHEDIR.TAG": `${SIGNATURE}\n# comment`,
    "target/debug/out.o": "1",
    "fake/CACHEDIR.TAG": SIGNATURE.slice(0, -1),
    "fake/kept": "1",
    "private/.nobackup": "",
    "private/deep/x": "1",
    "repo/.git/config": "1",
    "repo/src": "1",
    "marked/.skip": "SKIP, please",
    "marked/x": "1",
    "unmarked/.skip": "no",
    "unmarked/x": "1",
    "large/file": "1".repeat(2000),
    "large/limit": "1".repeat(1000),
    "a.txt": "1",
  });
  const all = await client.save();
  const asked: SaveOptions = {
    excludeCaches: true,
    excludeIfPresent: [".nobackup", ".git", ".skip:SKIP"],
    excludeLargerThan: 1000,
  };
  const first = await client.save(asked);
  const expected = [
    ["large/file", "excluded"],
    ["marked", "excluded"],
    ["private", "excluded"],
    ["repo", "excluded"],
    ["target", "excluded"],
  ];
  assert.deepEqual([said(first), first.complete], [expected, true]);
  const again = await client.save(asked);
  assert.deepEqual([again.unchanged, again.read_bytes === 0 || again.bytes_stored === 0], [true, true]);
  assert.equal((await client.save({ ...asked, skipUnchanged: true })).made, false);
  assert.equal((await client.status()).clean, true);
  await client.restore({ target: first.save_point_id, to: join(root, "to") });
  assert.deepEqual(
    namesIn(join(root, "to")),
    namesIn(folder).filter((name) => !/^(target\/debug|private\/deep|repo\/src|marked\/x|large\/file$)/.test(name)),
  );
  write("target/debug/out.o", "2");
  write("large/file", "2".repeat(3000));
  write("a.txt", "2");
  await client.restore({ target: first.save_point_id });
  const read = (): string[] =>
    ["target/debug/out.o", "large/file", "a.txt"].map((name) => fs.readFileSync(join(folder, name), "utf8")[0]!);
  assert.deepEqual(read(), ["2", "2", "1"]);
  // Another point's rules are its own.
  await client.restore({ target: all.save_point_id });
  assert.deepEqual(read(), ["1", "1", "1"]);
  await client.undo();
  assert.deepEqual(read(), ["2", "2", "1"]);
});

test("patterns given to a save override excludeCaches, and ignored folders are not searched for caches", async (t) => {
  const { client, folder, root } = await testFolder(t, {
    "cache/CACHEDIR.TAG": SIGNATURE,
    "cache/kept.txt": "1",
    "cache/gone": "1",
    "plain/CACHEDIR.TAG": SIGNATURE,
    "plain/.cairnignore": "CACHEDIR.TAG\n",
    "ignored/deep/CACHEDIR.TAG": SIGNATURE,
    "ignored/deep/large": "1".repeat(2000),
    ".cairnignore": "/ignored/deep\n",
    "outer/CACHEDIR.TAG": SIGNATURE,
    "outer/inner/CACHEDIR.TAG": SIGNATURE,
    "tags/.git/CACHEDIR.TAG": SIGNATURE,
    "tags/.git/x": "1",
  });
  const saved = await client.save({
    exclude: ["!*.txt", "/outer/CACHEDIR.TAG"],
    excludeCaches: true,
    excludeIfPresent: [".git"],
    excludeLargerThan: 1000,
  });
  assert.deepEqual(
    said(saved).map(([path]) => path),
    ["cache", "outer", "plain", "tags", "tags/.git"],
  );
  await client.restore({ target: saved.save_point_id, to: join(root, "to") });
  assert.deepEqual(namesIn(join(root, "to")), [
    ".cairnignore",
    "cache",
    "cache/CACHEDIR.TAG",
    "cache/kept.txt",
    "ignored",
    "outer",
    "plain",
    "tags",
    "tags/.git",
    "tags/.git/CACHEDIR.TAG",
  ]);
  assert.ok(fs.existsSync(join(folder, "cache/gone")));
});

test("a cache whose name is not UTF-8 is left out only if its pattern matches no other name, else kept with a warning", async (t) => {
  const { client, folder, root } = await testFolder(t);
  for (const name of ["caf\xe9", "am\xe8", "a b\xa0[*]", "\xc3\xa4"]) {
    raw(folder, `${name}/CACHEDIR.TAG`, SIGNATURE);
    raw(folder, `${name}/x`, "1");
  }
  for (const name of ["cafe", "am\xe9", "ame", "a b\xa0[*", "big\xff"]) raw(folder, `${name}/x`, "1");
  raw(folder, "big\xff/large\xfe", "1".repeat(2000));
  const warnings: string[] = [];
  const onWarning = (warning: string): unknown => warnings.push(warning);
  const { save_point_id: target } = await client.save({ excludeCaches: true, excludeLargerThan: 1000, onWarning });
  assert.deepEqual(
    warnings.map((warning) => warning.split(" ")[0]),
    [String.raw`am\xe8`],
  );
  await client.restore({ target, to: join(root, "to") });
  const gone = ["a b\xa0[*]/x", "big\xff/large\xfe", "caf\xe9/x", "\xc3\xa4/x"];
  assert.deepEqual(
    namesIn(folder).filter((name) => !namesIn(join(root, "to")).includes(name)),
    gone,
  );
});

test("save fails if its exclusions would leave out the whole folder or are invalid", async (t) => {
  const { client, write } = await testFolder(t, { "CACHEDIR.TAG": SIGNATURE, x: "1" });
  for (const asked of [
    { excludeCaches: true },
    { excludeIfPresent: ["x"] },
    { excludeIfPresent: ["a/b"] },
    { excludeIfPresent: [":x"] },
    { excludeIfPresent: ["a\0b"] },
    { excludeIfPresent: [`a:${"x".repeat(5000)}`] },
    { excludeLargerThan: 0 },
    { excludeLargerThan: -1 },
  ])
    await assert.rejects(client.save(asked), hasCode("usage"), JSON.stringify(asked));
  assert.equal(await client.hasSavePoints(), false);
  write("CACHEDIR.TAG", "");
  assert.deepEqual((await client.save({ excludeCaches: true, excludeIfPresent: ["y"] })).left_out, []);
});

test("a save that would leave out too many files one by one is refused before anything is published", async (t) => {
  const { client, folder, root } = await testFolder(t);
  // Each pattern has about 3 700 characters, and at most 8 MiB are recorded.
  const deep = Array.from({ length: 14 }, () => "d".repeat(250)).join("/");
  fs.mkdirSync(join(folder, deep), { recursive: true });
  for (let i = 0; i < 2500; i++) fs.writeFileSync(join(folder, deep, `${i}${"x".repeat(200)}`), "11");
  await assert.rejects(client.save({ excludeLargerThan: 1 }), hasCode("refused"));
  const stored = namesIn(join(root, "state")).filter((name) =>
    /\/(snapshots|index|data\/..)\/[0-9a-f]{64}$/.test(name),
  );
  assert.deepEqual([stored, await client.hasSavePoints()], [[], false]);
  await client.save();
  assert.ok(namesIn(join(root, "state")).some((name) => /\/snapshots\/[0-9a-f]{64}$/.test(name)));
});

test("a backup leaves out the same entries as restic, and a restore elsewhere keeps such entries", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, folder, root, write, place } = at;
  write("target/CACHEDIR.TAG", SIGNATURE);
  write("target/x/y", "1");
  write("a b/*[c]/CACHEDIR.TAG", `${SIGNATURE} more`);
  write("a b/*[c]/x", "1");
  write("fake/CACHEDIR.TAG", "Signature: none, but long enough to be read whole");
  write("fake/x", "1");
  write("deep/.nobackup", "no");
  write("repo/.git/config", "1");
  write("repo/src/x", "1");
  write("marked/.skip", "SKIP it");
  write("marked/x", "1");
  write("unmarked/.skip", "nothing");
  write("unmarked/x", "1");
  write("large", "1".repeat(1025));
  write("not", "1".repeat(1024));
  fs.symlinkSync("../large", join(folder, "deep/link"));
  const asked = {
    save: true,
    excludeCaches: true,
    excludeIfPresent: [".nobackup", ".git", ".skip:SKIP"],
    excludeLargerThan: 1024,
  };
  const made = await client.createBackup(repository, asked);
  assert.deepEqual(
    said(made).map(([path]) => path),
    ["a b/*[c]", "deep", "large", ...largeOfScene(folder), "marked", "repo", "target"],
  );
  assert.equal(made.incomplete, null);
  const again = await client.createBackup(repository, { ...asked, skipIfUnchanged: true });
  assert.deepEqual([again.unchanged, again.snapshot, again.save_point_id], [true, null, made.save_point_id]);

  const other = join(root, "other");
  fs.mkdirSync(other);
  const elsewhere = await at.library.init(other);
  raw(other, "target/x/y", "theirs");
  raw(other, "large", "theirs");
  raw(other, "deep/b.txt", "theirs");
  raw(other, "extra", "goes");
  await elsewhere.restoreBackup(repository, made.snapshot!.snapshot_id);
  for (const name of ["target/x/y", "large", "deep/b.txt"])
    assert.equal(fs.readFileSync(join(other, name), "utf8"), "theirs", name);
  assert.equal(fs.existsSync(join(other, "extra")), false);

  if (!hasRestic) return;
  const env = { ...process.env, RESTIC_PASSWORD: String(at.options.password), RESTIC_CACHE_DIR: join(root, "restic") };
  const restic = (...args: string[]): string =>
    spawnSync("restic", ["-q", "-r", place, ...args], { env, encoding: "utf8", cwd: folder }).stdout;
  const options =
    "--exclude-caches --exclude-if-present .nobackup --exclude-if-present .git --exclude-if-present .skip:SKIP";
  restic("backup", "--host", "restic", ...options.split(" "), "--exclude-larger-than", "1k", folder);
  const listed = (snapshot: string): string[] =>
    restic("ls", "--recursive", snapshot, folder)
      .split("\n")
      .filter((path) => path.startsWith(`${folder}/`))
      .toSorted();
  const [theirs] = (await repository.list({ hosts: ["restic"] })).snapshots;
  assert.deepEqual(listed(made.snapshot!.snapshot_id), listed(theirs!.snapshot_id));
  assert.ok(listed(theirs!.snapshot_id).includes(`${folder}/repo/.git/config`));
});

/** What the scene itself has of more than a kibibyte. */
function largeOfScene(folder: string): string[] {
  return namesIn(join(folder, "many"))
    .filter((name) => fs.statSync(join(folder, "many", name)).size > 1024)
    .map((name) => `many/${name}`);
}

test("save and status leave out hundreds of caches", async (t) => {
  const { client, folder, root } = await testFolder(t);
  for (let i = 0; i < 300; i++) {
    raw(folder, `d${i % 50}/p${i}/cache/CACHEDIR.TAG`, SIGNATURE);
    raw(folder, `d${i % 50}/p${i}/cache/x`, "1");
  }
  const saved = await client.save({ excludeCaches: true });
  assert.deepEqual([saved.left_out.length, saved.entries], [300, 950]);
  assert.equal((await client.save({ excludeCaches: true })).unchanged, true);
  fs.writeFileSync(join(folder, "d0/p0/cache/x"), "2");
  assert.equal((await client.status()).clean, true);
  await client.restore({ target: "head", to: join(root, "to") });
  assert.equal(fs.existsSync(join(root, "to/d0/p0/cache/x")), false);
});
