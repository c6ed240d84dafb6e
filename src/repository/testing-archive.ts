import { strict as assert } from "node:assert";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { ByteWriter } from "../formats/bytes.ts";
import { appendNode, beginTree, endTree, type TreeNode } from "../formats/restic/tree.ts";
import { objectIdOf, type ObjectId } from "../ids.ts";
import { newArena } from "../native.ts";
import { BlobIndex } from "./index/blob-index.ts";
import { BlobSource } from "./read/blob-source.ts";
import { LiveSet, type ReadTree } from "./trees/live.ts";
import { NearPacks } from "./read/near-packs.ts";
import { PackWriter, type FinishedPack } from "./packs/pack-writer.ts";
import { Repository } from "./repository.ts";
import { LocalStorage } from "./storage/local.ts";
import { followRoots, readStructure, type Structure } from "./verify/structure.ts";

/** For the tests of this folder: small real repositories, and real restic where it is installed. */

export const PASSWORD = "correct horse";

export interface Fixture {
  readonly folder: string;
  readonly path: string;
  readonly temporary: string;
  readonly storage: LocalStorage;
  readonly repository: Repository;
}

async function fixtureIn(folder: string): Promise<Fixture> {
  const [path, temporary] = [join(folder, "store"), join(folder, "tmp")];
  const storage = LocalStorage.create(path, { temporaryDirectory: temporary });
  return { folder, path, temporary, storage, repository: await Repository.create(storage, { password: PASSWORD }) };
}

/** Returns a new repository, which goes with the test. */
export async function repositoryFor(t: TestContext): Promise<Fixture> {
  const folder = mkdtempSync(join(tmpdir(), "cairn-repository-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return fixtureIn(folder);
}

export async function withRepository(run: (fixture: Fixture) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => run(await fixtureIn(folder)));
}

export async function withFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "cairn-repository-"));
  try {
    await run(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Checks everything but the content of packs, and that the index has all blobs of the snapshots. */
export async function checkStructure(
  repository: Repository,
  options: Parameters<typeof readStructure>[1],
): Promise<Structure> {
  const structure = await readStructure(repository, options);
  await followRoots(structure, { signal: options.signal });
  return structure;
}

export const resticInstalled = spawnSync("restic", ["version"]).status === 0;

/** Runs restic and returns its stdout. Throws an error with its stderr if it fails. */
export function restic(path: string, args: readonly string[], cwd?: string): string {
  const env = { ...process.env, RESTIC_PASSWORD: PASSWORD, RESTIC_PROGRESS_FPS: "0" };
  return execFileSync("restic", ["-r", path, "--no-cache", ...args], {
    env,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    ...(cwd === undefined ? {} : { cwd }),
  });
}

/** Changes a byte of an indexed blob, or `spoil`s its pack. Returns the pack's name. */
export async function spoilBlob(
  { repository, storage }: Fixture,
  id: Uint8Array,
  spoil = (bytes: Buffer, offset: number): Uint8Array =>
    bytes.fill(bytes[offset + 100]! ^ 1, offset + 100, offset + 101),
): Promise<ObjectId> {
  const index = await BlobIndex.load(repository, null);
  const { pack, offset } = index.place(index.lookup(id, 0));
  const file = storage.localPath("data", objectIdOf(pack));
  writeFileSync(file, spoil(readFileSync(file), offset));
  return objectIdOf(pack);
}

/** Throws if restic finds damage in a full read of the repository. Does nothing if restic is not installed. */
export function resticCheck(path: string): void {
  if (resticInstalled) restic(path, ["check", "--read-data"]);
}

export function sha(bytes: Uint8Array): Uint8Array {
  return createHash("sha256").update(bytes).digest();
}

const NODE: Omit<TreeNode, "name" | "type" | "content" | "subtree" | "size"> = {
  mode: 0o644,
  mtimeSec: 1_700_000_000,
  mtimeNs: 0,
  uid: 0,
  gid: 0,
  user: "root",
  group: "root",
  inode: 0n,
  deviceId: 0n,
  links: 1,
  xattrs: [],
  device: 0n,
};

/** A writer of small saves: `files` by name become one flat tree with a snapshot. */
export class TestArchive {
  readonly #fixture: Pick<Fixture, "repository" | "temporary">;
  readonly #known = new Set<string>();
  readonly #index: BlobIndex | null;

  /** `index`: `save` does not store the blobs that this index lists. */
  constructor(fixture: Pick<Fixture, "repository" | "temporary">, index: BlobIndex | null = null) {
    this.#fixture = fixture;
    this.#index = index;
  }

  /** Stores the new blobs of the files, and writes an index and a snapshot. */
  async save(files: Record<string, Uint8Array>): Promise<{ tree: Uint8Array; snapshot: ObjectId }> {
    const { repository, temporary } = this.#fixture;
    mkdirSync(temporary, { recursive: true });
    const packs: FinishedPack[] = [];
    const writer = (type: "data" | "tree"): PackWriter =>
      new PackWriter({ type, keys: repository.keys, directory: temporary, onPack: (pack) => packs.push(pack) });
    const data = writer("data");
    const trees = writer("tree");
    const w = new ByteWriter();
    const nodes: TreeNode[] = [];
    for (const [name, content] of Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (content.length > 0) this.#add(data, content);
      nodes.push({
        ...NODE,
        name: Buffer.from(name),
        type: "file",
        size: content.length,
        content: content.length > 0 ? sha(content) : new Uint8Array(0),
      });
    }
    beginTree(w);
    for (const node of nodes) appendNode(w, node);
    endTree(w);
    const inner = this.#add(trees, w.view());
    w.reset();
    beginTree(w);
    appendNode(w, { ...NODE, name: Buffer.from("folder"), type: "dir", mode: 0o755, size: 0, subtree: inner });
    endTree(w);
    const tree = this.#add(trees, w.view());
    data.finish();
    trees.finish();
    for (const pack of packs)
      await repository.storage.saveFile("data", objectIdOf(pack.id), pack.path, { durable: false });
    await repository.saveIndex(packs, { durable: false });
    const snapshot = await repository.saveSnapshot({
      time: new Date().toISOString(),
      tree: objectIdOf(tree),
      paths: ["/folder"],
      hostname: "test",
      username: "root",
      uid: 0,
      gid: 0,
    });
    return { tree, snapshot };
  }

  #add(writer: PackWriter, content: Uint8Array): Uint8Array {
    const id = sha(content);
    const key = Buffer.from(id).toString("hex");
    if (this.#known.has(key) || (this.#index !== null && this.#index.lookup(id, 0) >= 0)) return id;
    this.#known.add(key);
    const arena = newArena(content.length);
    arena.bytes.set(content);
    writer.add(id, arena, 0, content.length);
    return id;
  }
}

/**
 * Adds a pack that is marked for removal as by rustic's prune: `packs_to_delete` of an index file names it. Returns its
 * name.
 */
export async function markedPack(repository: Repository): Promise<ObjectId> {
  const { storage } = repository;
  const content = randomBytes(100);
  const marked = objectIdOf(sha(content));
  await storage.save("data", marked, content);
  const [old] = await storage.list("index");
  const plain = JSON.parse(Buffer.from(await repository.loadUnpacked("index", old!.name)).toString()) as object;
  const time = "2026-11-20T22:15:17+00:00";
  const more = { packs_to_delete: [{ id: marked, blobs: [], time }, { id: 7 }, null] };
  await storage.remove("index", old!.name);
  await repository.saveUnpacked("index", Buffer.from(JSON.stringify({ ...plain, ...more })));
  return marked;
}

/** Marks the index entries that these roots need. */
export async function liveFrom(index: BlobIndex, roots: readonly Uint8Array[], readTree: ReadTree): Promise<LiveSet> {
  const live = new LiveSet(index);
  await live.mark(roots, readTree);
  return live;
}

/** Asserts that no snapshot is damaged, and that the index, cached at `cachePath`, lists all content of the snapshots. */
export async function assertComplete(repository: Repository, cachePath: string | null): Promise<void> {
  const index = await BlobIndex.load(repository, cachePath);
  const { snapshots, damaged } = await repository.listSnapshots();
  const roots = snapshots.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex"));
  const { problems } = await liveFrom(index, roots, treeReader({ repository }, index));
  assert.deepEqual([damaged, problems], [[], []]);
}

/** Returns a reader of a local repository's trees by an index, for marking and mending. */
export function treeReader({ repository }: Pick<Fixture, "repository">, index: BlobIndex): ReadTree {
  return new BlobSource({ keys: repository.keys, index, packs: new NearPacks(repository.storage, "") }).readTree;
}

/** Files of random content, `size` bytes each. */
export function randomFiles(count: number, size: number, prefix = "f"): Record<string, Uint8Array> {
  const files: Record<string, Uint8Array> = {};
  for (let i = 0; i < count; i++) files[`${prefix}${i}`] = randomBytes(size);
  return files;
}

export function writeTree(folder: string, files: Record<string, Uint8Array>): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
}
