import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import { ByteWriter, hex } from "../../formats/bytes.ts";
import { encodeManifest } from "../../formats/records/manifest.ts";
import { objectIdOf } from "../../ids.ts";
import { TREE_BLOB } from "../../repository/index/blob-index.ts";
import { readPackHeader } from "../../repository/packs/pack-read.ts";
import type { CopyContent } from "./copy-content.ts";
import { rootMetadata } from "../../archive/write/root-metadata.ts";
import { PointStore } from "./point-store.ts";
import { createEmbeddedStore, EmbeddedStore } from "./embedded-store.ts";
import { storePaths, type StorePaths } from "./store-paths.ts";
import { snapshotTree } from "./snapshot-tree.ts";
import { temporaryFolder, TestStore } from "./testing-store.ts";
import type { ExamineRequest, PointToVerify } from "./store-care.ts";
import { type ExaminedStore, examineStore } from "./verify-store.ts";

const ID = "ab".repeat(16);

/** A workspace with its control directory, and functions that change both. */
class Scene {
  readonly root: string;
  readonly control: string;
  readonly paths: StorePaths;
  readonly points: PointToVerify[] = [];

  private constructor(t: TestContext) {
    this.root = temporaryFolder(t);
    this.control = temporaryFolder(t);
    this.paths = storePaths(this.control);
  }

  static async create(t: TestContext): Promise<Scene> {
    const scene = new Scene(t);
    fs.mkdirSync(scene.paths.temporary, { recursive: true });
    await createEmbeddedStore(scene.control);
    return scene;
  }

  write(name: string, content: string | Uint8Array): void {
    const file = path.join(this.root, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, content);
  }

  /** Saves the workspace as one more point, in packs of its own. */
  async save(label: string): Promise<PointToVerify> {
    const engine = new PointStore({
      control: this.control,
      statCache: path.join(this.control, "stat"),
      registeredAt: 1_700_000_000,
    });
    const staged = await engine.stage({
      scan: { root: Buffer.from(this.root), rules: null },
      recordedRoot: Buffer.from(this.root),
      databases: "copy",
      head: null,
      pointId: ID,
    });
    await staged.settled();
    await engine.close();
    const { state, meta } = staged.scan;
    const content = staged.content as CopyContent & PointToVerify["content"];
    const point = { id: label, content, stateDigest: hex(state), metadataDigest: hex(meta) };
    this.points.push(point);
    return point;
  }

  async verify(options: Partial<ExamineRequest> = {}): Promise<ExaminedStore> {
    const store = await EmbeddedStore.open(this.control);
    try {
      return await examineStore(store, { points: this.points, everything: false, reads: true, ...options });
    } finally {
      store.close();
    }
  }

  async store(): Promise<EmbeddedStore> {
    return EmbeddedStore.open(this.control);
  }

  /** The pack files that came with the last call, oldest call first. */
  packs(): string[] {
    const data = path.join(this.paths.repository, "data");
    return fs
      .readdirSync(data, { recursive: true, encoding: "utf8" })
      .map((name) => path.join(data, name))
      .filter((file) => fs.statSync(file).isFile());
  }
}

function flip(file: string, at: number): void {
  fs.chmodSync(file, 0o600);
  const bytes = fs.readFileSync(file);
  bytes[at < 0 ? bytes.length + at : at]! ^= 1;
  fs.writeFileSync(file, bytes);
}

/** Finds the pack with a file's content, and the content's offset and length. */
async function placeOf(
  scene: Scene,
  content: string | Uint8Array,
): Promise<{ file: string; offset: number; length: number }> {
  const store = await scene.store();
  const id = createHash("sha256").update(content).digest();
  const place = store.index.place(store.index.lookup(id, 0));
  return { file: store.storage.localPath("data", objectIdOf(place.pack)), offset: place.offset, length: place.length };
}

function treeOf({ content }: PointToVerify, key = "tree"): Uint8Array {
  return Buffer.from(String(content[key]), "hex");
}

async function placeOfTree(scene: Scene, id: Uint8Array): Promise<{ file: string; offset: number; length: number }> {
  const store = await scene.store();
  const place = store.index.place(store.index.lookup(id, 0, TREE_BLOB));
  return { file: store.storage.localPath("data", objectIdOf(place.pack)), offset: place.offset, length: place.length };
}

/** Problems as short lines: point, kind, path. */
function lines(result: ExaminedStore): string[] {
  return result.findings
    .map(({ point, kind, path: where }) =>
      [point ?? "-", kind, where === undefined ? "-" : Buffer.from(where).toString("latin1")].join(" "),
    )
    .toSorted();
}

function soundness(result: ExaminedStore): Record<string, boolean> {
  return Object.fromEntries(result.verdicts.map(({ id, sound }) => [id, sound]));
}

const kept = "content of a file that only the first point has, long enough to be one blob\n".repeat(20);
const shared = "content that all points share\n".repeat(20);

/** Two points: `dir/kept` only in the first, `dir/new` only in the second, `shared/file` in both, in separate packs. */
async function twoPoints(t: TestContext): Promise<Scene> {
  const scene = await Scene.create(t);
  scene.write("shared/file", shared);
  scene.write("dir/kept", kept);
  scene.write("top", "top\n");
  await scene.save("first");
  fs.rmSync(path.join(scene.root, "dir/kept"));
  scene.write("dir/new", randomBytes(5000));
  await scene.save("second");
  return scene;
}

void describe("a healthy store", () => {
  test("examineStore finds no problem in points with every kind of entry", async (t) => {
    const scene = await Scene.create(t);
    const { root } = scene;
    scene.write("empty", "");
    scene.write("a/b/c/deep", "deep");
    scene.write("big", randomBytes(3 * 1024 * 1024));
    scene.write("sparse", "");
    fs.truncateSync(path.join(root, "sparse"), 5_000_000);
    fs.symlinkSync("../nowhere", path.join(root, "link"));
    fs.symlinkSync(Buffer.from([0x2e, 0x2f, 0xff]), path.join(root, "raw-link"));
    fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/raw-`), Buffer.from([0xfe])]), "raw name");
    execFileSync("mkfifo", [path.join(root, "pipe")]);
    fs.linkSync(path.join(root, "a/b/c/deep"), path.join(root, "a/also"));
    fs.linkSync(path.join(root, "a/b/c/deep"), path.join(root, "zz-also"));
    {
      fs.linkSync(path.join(root, "link"), path.join(root, "a/same-link"));
      fs.linkSync(path.join(root, "pipe"), path.join(root, "a/b/same-pipe"));
    }
    fs.utimesSync(path.join(root, "empty"), -5.5, -5.5);
    for (let i = 0; i < 300; i++) scene.write(`many/${i % 7}/file-${i}`, `content ${i}`);
    await scene.save("first");
    fs.rmSync(path.join(root, "a/also"));
    scene.write("a/b/new", "new");
    await scene.save("second");
    for (const deep of [false, true]) {
      const result = await scene.verify({ deep });
      assert.deepEqual(result.findings, []);
      assert.deepEqual(soundness(result), { first: true, second: true });
      for (const [i, point] of result.verdicts.entries()) {
        assert.equal(hex(point.stateDigest!), scene.points[i]!.stateDigest);
        assert.equal(hex(point.metadataDigest!), scene.points[i]!.metadataDigest);
      }
      assert.equal(result.verdicts[1]!.files, result.verdicts[0]!.files);
    }
  });

  test("examineStore finds no problem in an empty point, or if no points are given", async (t) => {
    const scene = await Scene.create(t);
    assert.deepEqual((await scene.verify()).findings, []);
    await scene.save("empty");
    assert.deepEqual((await scene.verify()).findings, []);
  });

  test("examineStore throws interrupted if the caller aborts", async (t) => {
    const scene = await Scene.create(t);
    for (let i = 0; i < 40; i++) scene.write(`f${i}`, randomBytes(500_000));
    await scene.save("point");
    await assert.rejects(
      scene.verify({ signal: AbortSignal.timeout(5) }),
      (error: unknown) => error instanceof CairnError && error.code === "interrupted",
    );
    const seen: number[] = [];
    assert.deepEqual((await scene.verify({ onProgress: ({ done }) => void seen.push(done) })).findings, []);
  });

  test("examineStore computes a file's hash if the manifest lacks the hash", async (t) => {
    const scene = await Scene.create(t);
    // Longer than the longest chunk: of a single one the blob's id is the whole file's hash.
    scene.write("big", randomBytes(9_000_000));
    const point = await scene.save("point");
    scene.points[0] = { ...point, content: { tree: point.content.tree } };
    const result = await scene.verify();
    assert.deepEqual(result.findings, []);
    assert.equal(hex(result.verdicts[0]!.stateDigest!), point.stateDigest);
  });
});

void describe("a damaged store", () => {
  for (const [what, at] of [
    ["the IV", 3],
    ["the middle", -40],
    ["the MAC", -2],
  ] as const) {
    test(`examineStore names the file and point if a bit is flipped in ${what} of a blob`, async (t) => {
      const scene = await twoPoints(t);
      const { file, offset, length } = await placeOf(scene, kept);
      flip(file, offset + (at < 0 ? length + at : at));
      const result = await scene.verify();
      assert.deepEqual(lines(result), ["- pack -", "first content dir/kept"]);
      assert.deepEqual(soundness(result), { first: false, second: true });
      assert.match(
        result.findings.find((problem) => problem.point === "first")!.detail,
        /its MAC does not match its bytes/,
      );
      assert.deepEqual(result.damagedPacks, [path.basename(file)]);
      const second = await scene.verify({ points: [scene.points[1]!] });
      assert.deepEqual(second.findings, [], "a point that does not need the blob is sound");
    });
  }

  test("examineStore names every point that contains a damaged blob", async (t) => {
    const scene = await twoPoints(t);
    const { file, offset } = await placeOf(scene, shared);
    flip(file, offset + 20);
    assert.deepEqual(lines(await scene.verify()), [
      "- pack -",
      "first content shared/file",
      "second content shared/file",
    ]);
  });

  test("examineStore names the directory whose tree is damaged", async (t) => {
    const scene = await twoPoints(t);
    const store = await scene.store();
    const dir = store.tree(treeOf(scene.points[0]!)).find((node) => Buffer.from(node.name).toString() === "dir")!;
    const { file, offset } = await placeOfTree(scene, dir.subtree!);
    flip(file, offset + 20);
    const result = await scene.verify();
    assert.deepEqual(lines(result), ["- pack -", "first tree dir"]);
    assert.equal(result.verdicts[0]!.stateDigest, null);
    assert.deepEqual(soundness(result), { first: false, second: true });
  });

  test("examineStore names the point whose root tree is damaged", async (t) => {
    const scene = await twoPoints(t);
    const { file, offset } = await placeOfTree(scene, treeOf(scene.points[1]!));
    flip(file, offset + 20);
    assert.deepEqual(lines(await scene.verify()), ["- pack -", "second tree "]);
  });

  test("examineStore reports a damaged tree above the workspace as a problem of the snapshot", async (t) => {
    const scene = await twoPoints(t);
    const { file, offset } = await placeOfTree(scene, treeOf(scene.points[0]!, "snapshot_tree"));
    flip(file, offset + 20);
    const result = await scene.verify();
    assert.deepEqual(lines(result), ["- pack -", "first snapshot -"]);
    assert.equal(hex(result.verdicts[0]!.stateDigest!), scene.points[0]!.stateDigest);
  });

  for (const [what, at] of [
    ["the header", -30],
    ["the length of the header", -1],
  ] as const) {
    test(`examineStore reports the pack but no point if a bit is flipped in ${what} of the pack`, async (t) => {
      const scene = await twoPoints(t);
      const { file } = await placeOf(scene, kept);
      flip(file, at);
      const result = await scene.verify();
      assert.deepEqual(lines(result), ["- pack -"]);
      assert.deepEqual(soundness(result), { first: true, second: true });
      assert.match(result.findings[0]!.detail, /its header cannot be read.*none of the checked content is lost/);
    });
  }

  test("examineStore names the file whose pack is cut, missing or empty", async (t) => {
    const scene = await twoPoints(t);
    const { file, offset } = await placeOf(scene, kept);
    fs.chmodSync(file, 0o600);
    const whole = fs.readFileSync(file);
    for (const bytes of [whole.subarray(0, offset + 10), null, whole.subarray(0, 0)]) {
      if (bytes === null) fs.rmSync(file);
      else fs.writeFileSync(file, bytes);
      const result = await scene.verify();
      assert.ok(lines(result).includes("first content dir/kept"), lines(result).join());
      assert.ok(lines(result).includes("- pack -"));
      assert.equal(soundness(result)["first"], false);
    }
    fs.writeFileSync(file, whole);
    assert.deepEqual((await scene.verify()).findings, []);
  });

  test("examineStore names the point whose tree pack is missing", async (t) => {
    const scene = await twoPoints(t);
    const { file } = await placeOfTree(scene, treeOf(scene.points[0]!));
    fs.rmSync(file);
    const result = await scene.verify();
    assert.ok(lines(result).includes("first tree "));
    assert.match(result.findings.find((problem) => problem.kind === "tree")!.detail, /is missing/);
  });

  test("examineStore reports two packs that have each other's names", async (t) => {
    const scene = await twoPoints(t);
    const { file } = await placeOf(scene, kept);
    const other = (await placeOfTree(scene, treeOf(scene.points[0]!))).file;
    fs.renameSync(file, `${file}.x`);
    fs.renameSync(other, file);
    fs.renameSync(`${file}.x`, other);
    const result = await scene.verify();
    assert.ok(lines(result).includes("first tree "));
    assert.equal(result.damagedPacks.length, 2);
    assert.equal(soundness(result)["first"], false);
  });

  test("examineStore names the trees that the index lacks if an index file is missing", async (t) => {
    const scene = await twoPoints(t);
    const index = path.join(scene.paths.repository, "index");
    const oldest = fs
      .readdirSync(index)
      .toSorted((a, b) => fs.statSync(path.join(index, a)).mtimeMs - fs.statSync(path.join(index, b)).mtimeMs)[0]!;
    fs.rmSync(path.join(index, oldest));
    const result = await scene.verify();
    assert.deepEqual(soundness(result), { first: false, second: false });
    assert.ok(lines(result).includes("first tree "));
    assert.match(result.findings[0]!.detail, /the index does not know/);
    assert.ok(lines(result).includes("second tree shared"), lines(result).join());
  });

  test("examineStore reports only the files if one index file and one snapshot file are damaged, and all points are sound", async (t) => {
    const scene = await twoPoints(t);
    const { repository } = scene.paths;
    // The cache has the entries of the file that is damaged below.
    fs.mkdirSync(path.dirname(scene.paths.indexCache), { recursive: true });
    (await scene.store()).close();
    assert.ok(fs.existsSync(scene.paths.indexCache));
    const snapshot = String(scene.points[0]!.content["snapshot"]);
    for (const file of [
      ...fs
        .readdirSync(`${repository}/index`)
        .slice(0, 1)
        .map((name) => `${repository}/index/${name}`),
      `${repository}/snapshots/${snapshot}`,
    ])
      flip(file, 20);
    for (const everything of [false, true]) {
      const result = await scene.verify({ everything });
      assert.deepEqual(lines(result), ["- index -", "first snapshot -"]);
      assert.deepEqual(soundness(result), { first: true, second: true });
    }
  });

  test("examineStore reads a store with one bad blob once", async (t) => {
    const scene = await twoPoints(t);
    scene.write("large", randomBytes(8 * 1024 * 1024));
    await scene.save("third");
    /** Verifies, and returns also the bytes that this process read meanwhile, with its threads. */
    const counted = async (): Promise<[string[], number]> => {
      const read = (): number => Number(/^rchar: (\d+)$/m.exec(fs.readFileSync("/proc/self/io", "latin1"))![1]);
      const before = read();
      const found = lines(await scene.verify({ everything: true }));
      return [found, read() - before];
    };
    await counted();
    const [nothing, once] = await counted();
    assert.deepEqual(nothing, []);
    assert.ok(once > 8 * 1024 * 1024, String(once));
    const { file, offset } = await placeOf(scene, kept);
    flip(file, offset + 20);
    const [found, bytes] = await counted();
    assert.deepEqual(found, ["- pack -", "first content dir/kept"]);
    assert.ok(bytes < once + 4 * 1024 * 1024, `${bytes} of ${once}`);
  });

  test("examineStore reports recorded digests that differ from the content", async (t) => {
    const scene = await twoPoints(t);
    scene.points[0] = { ...scene.points[0]!, stateDigest: randomBytes(32).toString("hex") };
    scene.points[1] = { ...scene.points[1]!, metadataDigest: randomBytes(32).toString("hex") };
    const result = await scene.verify();
    assert.deepEqual(lines(result), ["first digest -", "first manifest -", "second digest -", "second manifest -"]);
  });

  test("examineStore reports damage in content that no given point contains only if everything is asked for", async (t) => {
    const scene = await twoPoints(t);
    const { file, offset } = await placeOf(scene, kept);
    flip(file, offset + 20);
    const points = [scene.points[1]!];
    assert.deepEqual(lines(await scene.verify({ points })), []);
    const all = await scene.verify({ points, everything: true });
    assert.deepEqual(lines(all), ["- content -", "- pack -"]);
    assert.match(all.findings.map(({ detail }) => detail).join(), /which belongs to no save point: .*dir\/kept/);
    assert.deepEqual(soundness(all), { second: true });
    assert.deepEqual(all.damagedPacks, [path.basename(file)]);
  });

  test("examineStore finds a flipped bit at every tried place of a pack", async (t) => {
    const scene = await Scene.create(t);
    scene.write("file", "short");
    await scene.save("point");
    const store = await scene.store();
    for (const file of scene.packs()) {
      const fd = fs.openSync(file, "r");
      const size = fs.fstatSync(fd).size;
      readPackHeader(fd, size, store.repository.keys);
      fs.closeSync(fd);
      for (let at = 0; at < size; at += 41) {
        flip(file, at);
        const result = await scene.verify();
        assert.ok(result.findings.length > 0, `byte ${at} of ${size}`);
        flip(file, at);
      }
    }
    assert.deepEqual((await scene.verify()).findings, []);
  });

  test("examineStore names a large file of which one chunk is damaged", async (t) => {
    const scene = await Scene.create(t);
    // More than the longest chunk, 8 MiB, so that there is a second one wherever the first ends.
    scene.write("dir/big", randomBytes(9_000_000));
    await scene.save("point");
    const store = await scene.store();
    const node = store.tree(store.tree(treeOf(scene.points[0]!)).at(0)!.subtree!).at(0)!;
    const { file, offset } = await placeOf(scene, store.read(node.content!.subarray(32, 64), "data"));
    flip(file, offset + 100);
    assert.deepEqual(lines(await scene.verify({ deep: true })), ["- pack -", "point content dir/big"]);
  });

  test("examineStore names a large file with a wrong recorded hash if deep is set", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    // Longer than the longest chunk: a single one's id would be its hash.
    fs.writeFileSync(path.join(root, "big"), randomBytes(9_000_000));
    let top: Uint8Array | undefined;
    const { tree, state } = await saves.save(root, {
      finish: (result) => {
        const { blobs, tree: built } = snapshotTree({
          path: Buffer.from(root),
          tree: result.tree,
          root: rootMetadata(Buffer.from(root)),
          manifest: wrongManifest(),
          registeredAt: 0,
        });
        top = built;
        return blobs;
      },
    });
    const { store } = saves;
    const content = { tree: hex(tree), snapshot_tree: hex(top!) };
    const points = [{ id: "point", content, stateDigest: hex(state), metadataDigest: null }];
    const request = { points, everything: false, reads: true };
    assert.deepEqual(lines(await examineStore(store, request)), ["point digest -"]);
    assert.deepEqual(lines(await examineStore(store, { ...request, deep: true })), [
      "point content big",
      "point digest -",
    ]);
  });
});

function wrongManifest(): Uint8Array {
  const writer = new ByteWriter();
  encodeManifest(writer, {
    stateDigest: null,
    metadataDigest: null,
    complete: true,
    entries: { files: 1, directories: 0, links: 0, other: 0 },
    labels: [],
    holeMaps: [],
    fileHashes: [{ path: Buffer.from("big"), sha256: randomBytes(32), size: 9_000_000 }],
    omitted: [],
    lossless: [],
  });
  return writer.copy();
}
