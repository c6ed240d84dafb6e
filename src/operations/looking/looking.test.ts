import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { Client } from "../../contract/index.ts";
import { testFolder } from "../testing-folder.ts";

async function points(t: TestContext, count: number): Promise<{ client: Client; folder: string; ids: string[] }> {
  const { client, folder } = await testFolder(t, { "a.txt": "0" });
  const ids: string[] = [];
  for (let i = 0; i < count; i++) {
    writeFileSync(path.join(folder, "a.txt"), String(i));
    if (i > 0) writeFileSync(path.join(folder, `n${i}`), "");
    ids.unshift((await client.save({ message: i % 2 === 0 ? "even" : "odd" })).save_point_id);
  }
  return { client, folder, ids };
}

test("history gives any page of the points, with how many there are and what each changed", async (t) => {
  const { client, ids } = await points(t, 7);
  const page = async (skip: number, limit: number, more = {}): Promise<string[]> =>
    (await client.history(undefined, limit, { skip, ...more })).save_points.map((each) => each.save_point_id);
  assert.deepEqual(await page(0, 3), ids.slice(0, 3));
  assert.deepEqual(await page(3, 3), ids.slice(3, 6));
  assert.deepEqual(await page(6, 3), ids.slice(6));
  assert.deepEqual(await page(7, 3), []);
  assert.deepEqual(await page(1, 2, { grep: "even" }), [ids[2], ids[4]]);
  const counted = await client.history(undefined, 2, { skip: 5, changes: true });
  assert.equal(counted.total, 7);
  assert.deepEqual(counted.changes, [{ added: 1, modified: 1, removed: 0 }, null]);
  assert.equal((await client.history(undefined, 2)).total, undefined);
});

test("undo points are in the pages and in the total only with all", async (t) => {
  const { client, ids } = await points(t, 3);
  await client.restore({ target: ids[2]! });
  const [saves, all] = await Promise.all([
    client.history(undefined, 1, { skip: 2 }),
    client.history(undefined, 1, { skip: 0, all: true }),
  ]);
  assert.deepEqual([saves.total, saves.save_points[0]!.save_point_id], [3, ids[2]]);
  assert.deepEqual([all.total, all.save_points[0]!.cause.kind], [4, "restore"]);
});

test("historyDays counts the points of each local day", async (t) => {
  const { client, ids } = await points(t, 5);
  const { days, total } = await client.historyDays();
  assert.equal(total, 5);
  assert.equal(
    days.reduce((sum, each) => sum + each.points, 0),
    5,
  );
  assert.equal(days[0]!.newest, ids[0]);
  const date = new Date((await client.history(undefined, 1)).save_points[0]!.created_at);
  const local = `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")}`;
  assert.equal(days[0]!.day, local);
});

test("historyDays finds every day of imported points", async (t) => {
  const { client, folder } = await testFolder(t, { a: "1" });
  const counts = [3, 1, 8, 2];
  for (const [day, many] of counts.entries())
    for (let i = 0; i < many; i++) {
      const tree = path.join(path.dirname(folder), `tree-${day}-${i}`);
      mkdirSync(tree);
      writeFileSync(path.join(tree, "a"), `${day} ${i}`);
      await client.importTree(tree, { createdAt: `2026-03-0${day + 1}T12:0${i}:00Z` });
    }
  const { days } = await client.historyDays();
  assert.deepEqual(
    days.map((each) => each.points),
    counts.toReversed(),
  );
});

test("a folder is listed by pages, in any order, folders first", async (t) => {
  const { client, folder } = await testFolder(t, { b: "22", a: "4444", "z/x": "" });
  writeFileSync(path.join(folder, "c"), "");
  const { save_point_id: id } = await client.save();
  const names = async (options: Parameters<Client["show"]>[2]): Promise<string[]> =>
    (await client.show(id, "", options)).entries.map((each) => each.path);
  assert.deepEqual(await names({ sort: "name" }), ["z", "a", "b", "c"]);
  assert.deepEqual(await names({ sort: "size" }), ["z", "c", "b", "a"]);
  assert.deepEqual(await names({ sort: "size", reverse: true, limit: 2 }), ["a", "b"]);
  assert.deepEqual(await names({ skip: 1, limit: 2 }), ["b", "c"]);
  assert.equal((await client.show(id, "", { limit: 1 })).total, 4);
  assert.equal((await client.show(id, "")).total, undefined);
});

test("a part of a file is read", async (t) => {
  const content = Buffer.alloc(3 << 20, "0123456789");
  const { client, folder } = await testFolder(t);
  writeFileSync(path.join(folder, "big"), content);
  const { save_point_id: id } = await client.save();
  for (const [offset, length] of [
    [0, 10],
    [(1 << 20) - 3, 7],
    [content.length - 4, 100],
    [content.length, 5],
    [5, 0],
  ] as const) {
    const pieces: Uint8Array[] = [];
    for await (const piece of client.read(id, "big", { offset, length })) pieces.push(piece);
    assert.deepEqual(Buffer.concat(pieces), content.subarray(offset, offset + length), `${offset} ${length}`);
  }
});

async function archive(client: Client, id: string, format: "tar" | "zip", paths?: string[]): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of client.readArchive(id, format, paths === undefined ? {} : { paths }))
    pieces.push(Uint8Array.from(piece));
  return Buffer.concat(pieces);
}

test("tar and zip archives hold what the point holds, or some paths of it", async (t) => {
  const { client, folder } = await testFolder(t, { "d/a": "one", "d/e/b": "two", other: "x" });
  symlinkSync("a", path.join(folder, "d/link"));
  linkSync(path.join(folder, "d/a"), path.join(folder, "d/same"));
  chmodSync(path.join(folder, "d/a"), 0o750);
  mkdirSync(path.join(folder, "empty"));
  const { save_point_id: id } = await client.save();
  const out = path.join(path.dirname(folder), "out");
  mkdirSync(out);
  execFileSync("tar", ["x", "-C", out], { input: await archive(client, id, "tar", ["d", "d/e", "empty"]) });
  assert.equal(readFileSync(path.join(out, "d/e/b"), "utf8"), "two");
  assert.equal(readlinkSync(path.join(out, "d/link")), "a");
  assert.equal(statSync(path.join(out, "d/a")).mode & 0o777, 0o750);
  assert.equal(statSync(path.join(out, "d/a")).ino, statSync(path.join(out, "d/same")).ino);
  assert.ok(statSync(path.join(out, "empty")).isDirectory());
  assert.equal(statSync(path.join(out, "other"), { throwIfNoEntry: false }), undefined);
  await assert.rejects(archive(client, id, "tar", ["none"]), { code: "not_found" });

  const zip = path.join(out, "all.zip");
  writeFileSync(zip, await archive(client, id, "zip"));
  const python =
    "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; print('\\n'.join(f'{i.filename} {i.external_attr >> 16:o} {i.file_size}' for i in z.infolist()))";
  const listed = spawnSync("python3", ["-c", python, zip], { encoding: "utf8" });
  if (listed.error !== undefined) return t.skip("python3 is not installed: the zip archive was not read");
  assert.equal(listed.stderr, "");
  const lines = listed.stdout.trim().split("\n").toSorted();
  assert.ok(lines.includes("d/a 100750 3"), listed.stdout);
  assert.ok(lines.includes("d/link 120777 1"), listed.stdout);
  assert.ok(
    lines.some((line) => line.startsWith("empty/ 40")),
    listed.stdout,
  );
  return undefined;
});

test("names are found in all points, also of what is gone", async (t) => {
  const { client, folder } = await testFolder(t, { "src/Main.ts": "1", "src/old.ts": "1", "docs/main.md": "1" });
  const first = (await client.save()).save_point_id;
  rmSync(path.join(folder, "src/old.ts"));
  writeFileSync(path.join(folder, "src/Main.ts"), "2");
  const second = (await client.save()).save_point_id;
  writeFileSync(path.join(folder, "src/old.ts"), "back");
  const third = (await client.save()).save_point_id;
  rmSync(path.join(folder, "docs"), { recursive: true });
  const last = (await client.save()).save_point_id;
  const found = async (pattern: string, options = {}) => (await client.findNames(pattern, options)).found;

  assert.deepEqual(await found("old"), [
    { path: "src/old.ts", kind: "file", newest: last, oldest: first, points: 3, in_latest: true },
  ]);
  assert.deepEqual(await found("main"), [
    { path: "docs/main.md", kind: "file", newest: third, oldest: first, points: 3, in_latest: false },
  ]);
  assert.deepEqual(
    (await found("main", { ignoreCase: true })).map((each) => [each.path, each.points]),
    [
      ["docs/main.md", 3],
      ["src/Main.ts", 4],
    ],
  );
  assert.deepEqual(
    (await found("*.ts")).map((each) => each.path),
    ["src/Main.ts", "src/old.ts"],
  );
  assert.deepEqual(
    (await found("src/*.ts")).map((each) => each.path),
    ["src/Main.ts", "src/old.ts"],
  );
  assert.equal((await client.findNames("s", { limit: 1 })).truncated, true);
  await assert.rejects(client.findNames(""), { code: "usage" });
  assert.notEqual(second, third);
});
