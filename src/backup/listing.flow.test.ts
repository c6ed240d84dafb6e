import assert from "node:assert/strict";
import {
  copyFileSync,
  linkSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Progress } from "../contract/index.ts";
import { markedPack } from "../repository/testing-archive.ts";
import { hasCode } from "../keep/testing-folder.ts";
import type { OpenedRepository } from "../keep/opened-repository.ts";
import { backupScene, withNode } from "./testing-far.ts";

/** Looking for snapshots and into them: which ones are meant, what holds an object, what they hold. */

test("list takes ids, prefixes and `latest` together with a filter", async (t) => {
  const { client, repository, write } = await backupScene(t, "local");
  const first = (await client.createBackup(repository, { save: true, tags: ["one"] })).snapshot!.snapshot_id;
  write("a.txt", "changed");
  const second = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
  const list = async (snapshots?: string[], tags: string[][] = []): Promise<string[]> =>
    (await repository.list({ ...(snapshots && { snapshots }), tags })).snapshots.map(({ snapshot_id: id }) => id);
  assert.deepEqual(await list(), [first, second]);
  assert.deepEqual(await list([second.slice(0, 10), first]), [first, second]);
  assert.deepEqual(await list(["latest"]), [second]);
  assert.deepEqual(await list(["latest"], [["one"]]), [first]);
  await assert.rejects(list(["latest"], [["two"]]), hasCode("not_found"));
  await assert.rejects(list(["zz"]), hasCode("not_found"));
});

test("find lists the files of a blob, a tree or a pack in each snapshot", async (t) => {
  const { client, repository, place, write } = await backupScene(t, "far");
  const { snapshot: first } = await client.createBackup(repository, { save: true });
  write("deep/b.txt", "another b");
  const { snapshot: second } = await client.createBackup(repository, { save: true });
  const found = async (id: string, object: "blob" | "tree" | "pack"): Promise<string[]> =>
    (await repository.find(id, { object })).found.map(({ snapshot_id: of, path }) => {
      const which = of === first!.snapshot_id ? "first" : "second";
      return `${which} ${path.replace(/^.*\/work(?=\/|$)/, "")}`;
    });
  const { content } = await repository.cat("tree", second!.tree);
  assert.deepEqual(await found(second!.tree.slice(0, 12), "tree"), ["second /"]);
  const { nodes } = content as { nodes: { name: string; subtree: string }[] };
  assert.deepEqual((await found(nodes.find(({ name }) => name !== ".cairn")!.subtree, "tree")).length, 1);
  const blobOf = async (path: string): Promise<string> => {
    let tree = second!.tree;
    const names = path.split("/");
    for (;;) {
      const { nodes } = (await repository.cat("tree", tree)).content as {
        nodes: { name: string; subtree?: string; content?: string[] }[];
      };
      const node = nodes.find(({ name }) => name === names[0])!;
      names.shift();
      if (node.subtree === undefined) return node.content![0]!;
      tree = node.subtree;
    }
  };
  const [folder] = second!.paths;
  const shared = await blobOf(`${folder!.slice(1)}/a.txt`);
  assert.deepEqual(
    (await found(shared, "blob")).map((line) => line.split(" ")[0]),
    ["second", "first"],
  );
  const own = await found(await blobOf(`${folder!.slice(1)}/deep/b.txt`), "blob");
  assert.ok(own.length === 1 && own[0]!.endsWith("/deep/b.txt"));
  const packs = readdirSync(join(place, "data"), { recursive: true, encoding: "utf8" }).filter((name) =>
    /\/\w{64}$/.test(name),
  );
  const [largest] = packs.toSorted(
    (a, b) => statSync(join(place, "data", b)).size - statSync(join(place, "data", a)).size,
  );
  assert.ok((await found(largest!.slice(3), "pack")).length > 50);
  for (const object of ["blob", "tree", "pack"] as const) {
    await assert.rejects(found("ffffffffffffffff", object), hasCode("not_found"));
    await assert.rejects(found("*", object), hasCode("not_found"));
  }
});

test("a find pattern that ends with a slash matches only directories", async (t) => {
  const { client, repository } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  const paths = async (pattern: string): Promise<string[]> =>
    (await repository.find(pattern)).found.map(({ path }) => path);
  assert.ok((await paths("deep/")).every((path) => path.endsWith("/deep")));
  assert.equal((await paths("deep/")).length, 1);
  assert.ok((await paths("*")).every((path) => path !== "/"));
});

test("find names damaged trees and searches all others", async (t) => {
  const { client, repository, place, write } = await backupScene(t, "local");
  const { snapshot: first } = await client.createBackup(repository, { save: true });
  const packs = new Set(readdirSync(join(place, "data"), { recursive: true, encoding: "utf8" }));
  write("deep/b.txt", "changed");
  const { snapshot: second } = await client.createBackup(repository, { save: true });
  const whole = await repository.find("*.txt");
  assert.deepEqual([whole.damaged, whole.found.length], [[], 4]);
  const own = readdirSync(join(place, "data"), { recursive: true, encoding: "utf8" }).filter(
    (name) => !packs.has(name),
  );
  for (const name of own.filter((each) => /\/\w{64}$/.test(each))) {
    const path = join(place, "data", name);
    const bytes = readFileSync(path);
    bytes[20] = bytes[20]! ^ 1;
    writeFileSync(path, bytes);
  }
  const torn = await repository.find("*.txt");
  assert.deepEqual([...new Set(torn.damaged.map(({ snapshot_id: id }) => id))], [second!.snapshot_id]);
  assert.ok(torn.found.filter(({ snapshot_id: id }) => id === first!.snapshot_id).length === 2);
  writeFileSync(join(place, "snapshots", first!.snapshot_id), "nonsense");
  const lost = await repository.find("*.txt");
  assert.ok(lost.damaged.some(({ snapshot_id: id, path }) => id === first!.snapshot_id && path === "/"));
});

test("diff lists each difference, also of times alone", async (t) => {
  const { client, repository, folder, write } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true, tags: ["one"] });
  const before = (await repository.list()).snapshots[0]!.snapshot_id;
  write("deep/new", "new");
  write("a.txt", "another");
  utimesSync(join(folder, "many/7"), 1, 1);
  await client.createBackup(repository, { save: true });
  const { entries } = await repository.diff(before, "latest");
  assert.deepEqual(
    entries.map(({ path, change, aspects }) => [path, change, aspects.join()]),
    [
      ["a.txt", "modified", "content,times"],
      ["deep", "modified", "times"],
      ["deep/new", "added", ""],
      ["many/7", "modified", "times"],
    ],
  );
});

test("diff lists hard links that were broken between two save points", async (t) => {
  const { client, repository, folder } = await backupScene(t, "local");
  const [one, two] = [join(folder, "a.txt"), join(folder, "deep/also")];
  linkSync(one, two);
  const { snapshot } = await client.createBackup(repository, { save: true });
  copyFileSync(two, join(folder, "copy"));
  utimesSync(join(folder, "copy"), statSync(two).atime, statSync(two).mtime);
  renameSync(join(folder, "copy"), two);
  await client.createBackup(repository, { save: true });
  const { entries } = await repository.diff(snapshot!.snapshot_id, "latest");
  const linked = entries.filter(({ aspects }) => aspects.includes("links"));
  assert.deepEqual(
    linked.map(({ path, change }) => [path, change]),
    [
      ["a.txt", "modified"],
      ["deep/also", "modified"],
    ],
  );
});

test("createBackup reports the current file, and its snapshot has the save's exclude patterns", async (t) => {
  const { client, repository, folder, write } = await backupScene(t, "local");
  write("left.log", "not wanted");
  const shown: string[] = [];
  const onProgress = ({ phase, current, done, total }: Progress): void => {
    if (phase === "uploading" && done !== total) shown.push(current ?? "");
  };
  await client.save({ exclude: ["*.log"] });
  const { snapshot } = await client.createBackup(repository, { save: false, onProgress });
  assert.ok(shown.length > 0 && shown.every((path) => path.startsWith(`${folder}/`)), shown.join());
  assert.deepEqual((await repository.find("left.log")).found, []);
  const { content } = await repository.cat("snapshot", snapshot!.snapshot_id);
  assert.deepEqual((content as { excludes: string[] }).excludes, ["*.log"]);
});

test("stats of several snapshots count their shared content once", async (t) => {
  const { client, repository, write } = await backupScene(t, "far");
  await client.createBackup(repository, { save: true, tags: ["one"] });
  const all = await repository.stats();
  assert.equal(all.selection, null);
  const one = (await repository.stats({ snapshots: ["latest"] })).selection!;
  assert.deepEqual(
    [one.data_blobs, one.tree_blobs, one.stored_bytes],
    [all.data_blobs, all.tree_blobs, all.stored_bytes],
  );
  const { snapshots } = await repository.list();
  assert.deepEqual([one.snapshots, one.files, one.bytes], [1, snapshots[0]!.files, snapshots[0]!.bytes]);
  write("a.txt", "another");
  await client.createBackup(repository, { save: true });
  const both = (await repository.stats({ hosts: [snapshots[0]!.hostname] })).selection!;
  assert.deepEqual([both.snapshots, both.files], [2, 2 * one.files]);
  assert.ok(both.data_blobs > one.data_blobs && both.data_blobs < 2 * one.data_blobs);
  assert.deepEqual((await repository.stats({ tags: [["one"]] })).selection, one);
});

test("stats count the bytes of a file with several names once in each snapshot", async (t) => {
  const { client, repository, folder, write } = await backupScene(t, "far");
  const sizes = async (): Promise<[number, number]> => {
    const { files, bytes } = (await repository.stats({ hosts: [hostname()] })).selection!;
    return [files, bytes];
  };
  await client.createBackup(repository, { save: true });
  const [files, bytes] = await sizes();
  write("deep/twice.txt", "x".repeat(1000));
  for (const name of ["deep/again.txt", "again.txt"]) linkSync(join(folder, "deep/twice.txt"), join(folder, name));
  await client.createBackup(repository, { save: true });
  assert.deepEqual(await sizes(), [files + files + 3, bytes + bytes + 1000]);
});

test("stats count packs that no index lists, except packs that rustic has marked for removal", async (t) => {
  const { client, repository } = await backupScene(t, "far");
  await client.createBackup(repository, { save: true });
  const { repository: opened } = (repository as OpenedRepository).access;
  await markedPack(opened);
  await opened.storage.save("data", "cd".repeat(32), Buffer.alloc(50));
  assert.equal((await repository.stats()).unindexed_packs, 1);
});

test("cat refuses an id for the config", async (t) => {
  const { repository } = await backupScene(t, "local");
  const { content } = await repository.cat("config");
  assert.equal((content as { version: number }).version, 2);
  await assert.rejects(repository.cat("config", "1a2b"), hasCode("usage"));
});

test("a block device has the kind `blockdev` in diff, find and show", async (t) => {
  const { client, repository, folder } = await backupScene(t, "local");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const path = `${folder.slice(1)}/a.txt`;
  const device = { type: "dev", device: 0x7c8n, content: new Uint8Array(0), size: 0 } as const;
  const id = await withNode(repository as OpenedRepository, snapshot!.snapshot_id, path, async () => device);
  const { entries } = await repository.diff(snapshot!.snapshot_id, id);
  const { found } = await repository.find("a.txt", { snapshots: [id] });
  const shown = await repository.show(id, "a.txt");
  assert.deepEqual(
    [...entries, ...found, ...shown.entries].map(({ kind }) => kind),
    ["blockdev", "blockdev", "blockdev"],
  );
});
