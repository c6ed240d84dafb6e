import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import type { HeadContent, PointContent, StagedContent, StageRequest } from "./engine.ts";
import { freeContent } from "./free-content.ts";
import type { KeptContent } from "./held-bytes.ts";
import { temporaryFolder } from "./testing-store.ts";
import { walkDigests } from "./testing-walk.ts";
import { PointStore } from "./point-store.ts";
import { createEmbeddedStore, EmbeddedStore } from "./embedded-store.ts";
import { storePaths } from "./store-paths.ts";

interface Setup {
  control: string;
  root: string;
  engine: PointStore;
  stage(head?: HeadContent | null): Promise<StagedContent>;
}

let points = 0;

function request(root: string, head: HeadContent | null): StageRequest {
  return {
    scan: { root: Buffer.from(root), rules: null },
    recordedRoot: Buffer.from(root),
    databases: "copy",
    head,
    pointId: String(++points).padStart(32, "0"),
  };
}

function engineOf(t: TestContext, control: string): PointStore {
  const engine = new PointStore({ control, statCache: path.join(control, "cache/stat"), registeredAt: 1_700_000_000 });
  t.after(async () => engine.close());
  return engine;
}

async function setUp(t: TestContext): Promise<Setup> {
  const control = temporaryFolder(t);
  const root = temporaryFolder(t);
  await createEmbeddedStore(control);
  const engine = engineOf(t, control);
  const stage = async (head: HeadContent | null = null): Promise<StagedContent> => {
    const staged = await engine.stage(request(root, head));
    await staged.settled();
    return staged;
  };
  return { control, root, engine, stage };
}

function headOf(staged: StagedContent): HeadContent {
  const { content, summary, scan } = staged;
  return {
    content: content as unknown as HeadContent["content"],
    entries: summary.entries,
    bytes: summary.bytes,
    complete: true,
    metadata_digest: Buffer.from(scan.meta).toString("hex"),
    labels: [],
  };
}

void describe("the copy engine", () => {
  test("stage stores the folder at its path in a snapshot, and the manifest in .cairn", async (t) => {
    const { root, engine, stage } = await setUp(t);
    fs.mkdirSync(path.join(root, "dir"));
    fs.writeFileSync(path.join(root, "dir/file"), "content");
    const staged = await stage();
    const content = staged.content as { tree: string; snapshot_tree: string; snapshot: string };
    const store = await engine.store();
    let tree: Uint8Array = Buffer.from(content.snapshot_tree, "hex");
    assert.deepEqual(
      Array.from(store.tree(tree), (node) => Buffer.from(node.name).toString()).toSorted(),
      [".cairn", root.split("/")[1]].toSorted(),
    );
    for (const part of root.split("/").slice(1)) {
      const node = store.tree(tree).find((each) => Buffer.from(each.name).toString() === part);
      assert.ok(node?.subtree !== undefined, part);
      tree = node.subtree;
    }
    assert.equal(Buffer.from(tree).toString("hex"), content.tree);
    const manifest = await engine.manifest(staged.content);
    assert.equal(manifest?.stateDigest, walkDigests(root).state);
    assert.equal(manifest?.metadataDigest, walkDigests(root).meta);
    assert.deepEqual(manifest?.entries, { files: 1, directories: 1, links: 0, other: 0 });
    const source = await engine.source(staged.content);
    const [dir] = source.list(source.root);
    const [file] = source.list(dir!.subtree!);
    assert.equal(Buffer.concat([...source.content(file!)].map((part) => Buffer.from(part))).toString(), "content");
    const { snapshots } = await store.repository.listSnapshots();
    assert.deepEqual(
      snapshots.map(({ snapshot }) => snapshot.tags),
      [[`cairn:${String(points).padStart(32, "0")}`]],
    );
  });

  test("stage stores only changed files, and nothing if the folder is unchanged", async (t) => {
    const { root, stage, control } = await setUp(t);
    for (let i = 0; i < 20; i++) fs.writeFileSync(path.join(root, `f${i}`), randomBytes(50_000));
    const first = await stage();
    assert.ok(first.bytesStored > 1_000_000);
    const second = await stage(headOf(first));
    assert.equal(second.content.tree, first.content.tree);
    assert.equal(second.bytesStored, 0);
    fs.writeFileSync(path.join(root, "f3"), randomBytes(50_000));
    const third = await stage(headOf(second));
    assert.notEqual(third.content.tree, first.content.tree);
    assert.ok(third.bytesStored > 50_000 && third.bytesStored < 70_000, `${third.bytesStored}`);
    // Without the cache all is read, and nothing is stored again.
    fs.rmSync(path.join(control, "cache"), { recursive: true });
    const fourth = await stage(headOf(third));
    assert.equal(fourth.content.tree, third.content.tree);
    assert.equal(fourth.scan.notes.filesRead, 20);
    assert.ok(fourth.bytesStored < 3000);
  });

  test("freeContent loads the index once before and once after it removes content", async (t) => {
    const { root, engine, stage } = await setUp(t);
    const free = async (pointIds: string[], content: PointContent): Promise<number> => {
      const kept = (): KeptContent => ({ contents: [content], unreadable: [] });
      return (await freeContent(await engine.store(), { pointIds, kept, thorough: true, waitMs: 1000 })).bytesFreed;
    };
    fs.writeFileSync(path.join(root, "f"), randomBytes(50_000));
    await stage();
    const gone = String(points).padStart(32, "0");
    fs.writeFileSync(path.join(root, "f"), randomBytes(50_000));
    const { content } = await stage();
    const load = t.mock.method(BlobIndex, "load");
    assert.ok((await free([gone], content)) > 50_000);
    assert.equal(load.mock.callCount(), 2);
    const { index, repository } = await engine.store();
    assert.deepEqual(
      [...index.covered],
      (await repository.storage.list("index")).map(({ name }) => name),
    );
    assert.equal(await free([], content), 0);
    assert.equal(load.mock.callCount(), 3);
  });

  test("freeContent throws the first error, even if the index cannot be read afterwards", async (t) => {
    const { root, engine, stage } = await setUp(t);
    fs.writeFileSync(path.join(root, "f"), "content");
    await stage();
    const store = await engine.store();
    t.mock.method(store, "refresh", async () => Promise.reject(new CairnError("io", "and no index after it")));
    const kept = (): KeptContent => ({
      get contents(): never {
        throw new CairnError("no_space", "what failed first");
      },
      unreadable: [],
    });
    const freeing = freeContent(store, { pointIds: [], kept, thorough: true, waitMs: 1000 });
    await assert.rejects(freeing, { code: "no_space", message: "what failed first" });
  });

  test("stage replaces a lost pack and warns of an unindexed pack that this user may not read", async (t) => {
    const { root, engine, stage } = await setUp(t);
    fs.writeFileSync(path.join(root, "f"), randomBytes(50_000));
    const head = headOf(await stage());
    const { storage } = await engine.store();
    const packs = await storage.list("data");
    fs.rmSync(storage.localPath("data", packs.toSorted((a, b) => b.size - a.size)[0]!.name));
    const others = "ab".repeat(32);
    await storage.save("data", others, Buffer.alloc(100));
    const load = storage.load.bind(storage);
    storage.load = async (...of) => {
      if (of[1] === others) throw new CairnError("permission", "this user may not read it");
      return load(...of);
    };
    const warnings: string[] = [];
    fs.writeFileSync(path.join(root, "g"), "more");
    const onWarning = (message: string): void => void warnings.push(message);
    const staged = await engine.stage({ ...request(root, head), onWarning });
    await staged.settled();
    assert.match(warnings.join("\n"), /^packs .* this save stores their content again: this user may not read it$/);
  });

  test("stage stores content again that the store has lost, even if status looked at the folder before", async (t) => {
    const { root, control, stage } = await setUp(t);
    const indexes = (): string[] => fs.readdirSync(path.join(control, "store/index"));
    fs.writeFileSync(path.join(root, "other"), "stays");
    await stage();
    const before = indexes();
    fs.writeFileSync(path.join(root, "file"), "content");
    const first = await stage();
    // As after 'restic forget --prune' of the second point's snapshot, with the caches lost too.
    for (const name of indexes()) if (!before.includes(name)) fs.rmSync(path.join(control, "store/index", name));
    for (const name of fs.readdirSync(path.join(control, "cache"))) fs.rmSync(path.join(control, "cache", name));
    const looking = engineOf(t, control);
    await looking.look(request(root, null).scan, { tree: first.content.tree });
    const saving = engineOf(t, control);
    const second = await saving.stage(request(root, headOf(first)));
    const source = await saving.source(second.content);
    const file = source.list(source.root).find(({ name }) => Buffer.from(name).toString() === "file");
    assert.equal(Buffer.concat([...source.content(file!)].map((part) => Buffer.from(part))).toString(), "content");
  });

  test("another engine object writes a point exactly as it was saved", async (t) => {
    const { root, stage, control } = await setUp(t);
    fs.mkdirSync(path.join(root, "a"));
    fs.writeFileSync(path.join(root, "a/file"), "x");
    fs.writeFileSync(path.join(root, "a/large"), randomBytes(3_000_000));
    fs.symlinkSync("file", path.join(root, "a/link"));
    fs.linkSync(path.join(root, "a/link"), path.join(root, "linked link"));
    fs.truncateSync(path.join(root, "a/file"), 5_000_000);
    const staged = await stage();
    const target = temporaryFolder(t);
    const other = engineOf(t, control);
    const written = await other.write(staged.content, { target: Buffer.from(target), paths: null });
    assert.deepEqual(written.damaged, []);
    assert.equal(written.entries, 5);
    assert.equal(walkDigests(target).state, walkDigests(root).state);
    assert.deepEqual(written.notSet, []);
    assert.equal(walkDigests(target).meta, walkDigests(root).meta);
    assert.equal(fs.statSync(path.join(target, "a/file")).blocks, fs.statSync(path.join(root, "a/file")).blocks);
  });

  test("a store opens by its password if the key file is lost, and throws damaged if both are lost", async (t) => {
    const { control, root, stage } = await setUp(t);
    fs.writeFileSync(path.join(root, "file"), "x");
    const staged = await stage();
    const paths = storePaths(control);
    for (const file of [paths.keyFile, paths.passwordFile]) assert.equal(fs.statSync(file).mode & 0o777, 0o600);
    fs.rmSync(paths.keyFile);
    const again = await EmbeddedStore.open(control);
    assert.equal(again.tree(Buffer.from(staged.content.tree, "hex")).length, 1);
    again.close();
    assert.ok(fs.existsSync(paths.keyFile), "written again");
    fs.rmSync(paths.keyFile);
    fs.rmSync(paths.passwordFile);
    await assert.rejects(EmbeddedStore.open(control), { code: "damaged" });
  });

  test("createEmbeddedStore replaces a store whose creation was not finished", async (t) => {
    const control = temporaryFolder(t);
    const paths = storePaths(control);
    await createEmbeddedStore(control);
    fs.rmSync(path.join(paths.repository, "config"));
    fs.rmSync(paths.keyFile);
    await createEmbeddedStore(control);
    (await EmbeddedStore.open(control)).close();
  });

  test("reading a point throws damaged if a blob is missing", async (t) => {
    const { control, root, stage, engine } = await setUp(t);
    fs.writeFileSync(path.join(root, "file"), "x");
    const staged = await stage();
    const store = await engine.store();
    assert.throws(() => store.read(Buffer.alloc(32), "data"), { code: "damaged" });
    await engine.close();
    fs.rmSync(path.join(storePaths(control).repository, "data"), { recursive: true });
    const other = engineOf(t, control);
    const source = await other.source(staged.content);
    assert.throws(() => source.list(source.root), { code: "damaged" });
  });
});
