import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { openStorage } from "../compose.ts";
import { PointStore } from "../workspace/store/point-store.ts";
import { sha256 } from "../crypto/hash.ts";
import { encodeTree, type TreeNode } from "../formats/restic/tree.ts";
import { objectIdOf } from "../ids.ts";
import { arenaOver } from "../native.ts";
import { DATA_BLOB } from "../repository/index/blob-index.ts";
import { BlobSource } from "../repository/read/blob-source.ts";
import { PackedBlobs } from "../repository/packs/packed-blobs.ts";
import { CountingStorage } from "../repository/storage/testing-counting.ts";
import { RetryingStorage } from "../repository/storage/retrying.ts";
import { type Fault, FaultyStorage } from "../repository/storage/testing-faulty.ts";
import type { StorageFactory } from "../repository/storage/location.ts";
import { LiveDatabases } from "../capture/sqlite/live-databases.ts";
import type { BackupRepository, CairnLibrary, RepositoryOptions } from "../contract/index.ts";
import { Library } from "../verbs/open-library.ts";
import { testFolder, type TestFolder } from "../keep/testing-folder.ts";
import type { OpenedRepository } from "../keep/opened-repository.ts";
import { nameOf, readBlob, readNodes } from "../archive/databases/nodes.ts";
import { makeRepository } from "./testing-repository.ts";
import { nearPacks } from "./open/session.ts";
import { firstOf } from "../../test/fixtures/long.ts";

/** Workspaces and repositories of a test; `far:/path` is a local repository that claims to be remote. */

/** Kinds of storage over which a test runs: every one with `CAIRN_TEST_LONG`. */
export const SCHEMES = firstOf(["far", "local"] as const, 1);

export interface BackupScene extends TestFolder {
  library: CairnLibrary;
  repository: BackupRepository;
  options: RepositoryOptions;
  /** Absolute path of the repository. */
  place: string;
}

/** The storages opened last: `faulty:/path` fails on demand (`retried:` repeats its calls), `far:/path` counts its calls. */
export const opened: { faulty: FaultyStorage | null; far: CountingStorage | null } = { faulty: null, far: null };
/** Faults of each `faulty:` and `retried:` that is opened. */
export const faults: Fault[] = [];

const storages: StorageFactory = async (location, options = {}) => {
  const [scheme, path = ""] = location.split(":");
  if (scheme === "faulty" || scheme === "retried") {
    opened.faulty = new FaultyStorage(await openStorage(path, options), faults);
    return scheme === "faulty" ? opened.faulty : new RetryingStorage(opened.faulty);
  }
  if (!location.startsWith("far:")) return openStorage(location, options);
  const near = await openStorage(location.slice("far:".length), options);
  const far = new CountingStorage(near);
  delete far.localPath;
  opened.far = far;
  return far;
};

export async function backupScene(
  context: TestContext,
  scheme: "local" | "far" | "faulty" | "retried",
): Promise<BackupScene> {
  const at = await testFolder(context, { "a.txt": "a\n", "deep/b.txt": "b\n" });
  const cache = process.env["XDG_CACHE_HOME"];
  context.after(() => {
    if (cache === undefined) delete process.env["XDG_CACHE_HOME"];
    else process.env["XDG_CACHE_HOME"] = cache;
  });
  process.env["XDG_CACHE_HOME"] = join(at.root, "cache");
  for (let i = 0; i < 50; i++) at.write(`many/${i}`, `file ${i}\n`.repeat(i));
  const library = new Library(
    {
      engine: (found, options) =>
        new PointStore({ control: found.control.root, databases: new LiveDatabases(), ...options }),
      recoveries: [],
    },
    storages,
  ) as unknown as CairnLibrary;
  const client = await library.open(at.folder);
  const place = join(at.root, "repository");
  mkdirSync(place);
  const options = { repository: `${scheme}:${place}`, password: "correct horse" };
  await makeRepository(options, storages);
  const repository = await library.openRepository(options);
  context.after(async () => repository.close());
  return { ...at, client, library, repository, options, place };
}

/** Flips a byte in the largest pack of a repository; returns its name. */
export function damagePack(place: string, at: (size: number) => number, pick: "largest" | "smallest"): string {
  const data = join(place, "data");
  const packs = readdirSync(data, { recursive: true, encoding: "utf8" })
    .filter((name) => /\/[0-9a-f]{64}$/.test(name))
    .map((name) => ({ path: join(data, name), bytes: readFileSync(join(data, name)) }))
    .toSorted((a, b) => a.bytes.length - b.bytes.length);
  const { path, bytes } = packs.at(pick === "largest" ? -1 : 0)!;
  const offset = at(bytes.length);
  bytes[offset] = bytes[offset]! ^ 1;
  writeFileSync(path, bytes);
  return path.slice(-64);
}

/** Tools for making a changed snapshot. */
interface Rewriting {
  reader: BlobSource;
  /** Nodes of the unchanged snapshot's top tree. */
  top: TreeNode[];
  /** Adds a blob, under the id of its content unless another is given. */
  add(type: "data" | "tree", bytes: Uint8Array, id?: Uint8Array): Uint8Array;
  /** Adds a tree in which one node has changed fields. */
  put(nodes: readonly TreeNode[], name: string, part: Partial<TreeNode>): Uint8Array;
}

/** A copy of a snapshot with another topmost tree, whole and indexed; returns its id. */
async function rewritten(
  { access }: OpenedRepository,
  snapshotId: string,
  change: (rewriting: Rewriting) => Promise<Uint8Array>,
): Promise<string> {
  const { repository } = access;
  const index = await access.index();
  const reader = new BlobSource({ keys: repository.keys, index, packs: nearPacks(access) });
  const blobs = new PackedBlobs({ repository, index, directory: join(access.workDirectory(), "packs") });
  const add: Rewriting["add"] = (type, bytes, id = sha256(bytes)) => {
    blobs.add(type, id, arenaOver(Uint8Array.from(bytes)), 0, bytes.length);
    return id;
  };
  const put: Rewriting["put"] = (nodes, name, part) =>
    add("tree", encodeTree(nodes.map((node) => (nameOf(node) === name ? { ...node, ...part } : node))));
  try {
    const snapshot = await repository.loadSnapshot(snapshotId);
    const top = [...(await readNodes(reader, Buffer.from(snapshot.tree, "hex")))];
    const tree = objectIdOf(await change({ reader, top, add, put }));
    await blobs.finish();
    return await repository.saveSnapshot({ ...snapshot, tree });
  } finally {
    reader.close();
  }
}

/** A snapshot of the same tree with other bytes for a manifest, whole and indexed; returns its id. */
export async function withManifest(
  opened: OpenedRepository,
  snapshotId: string,
  change: (manifest: string) => string,
): Promise<string> {
  return rewritten(opened, snapshotId, async ({ reader, top, add, put }) => {
    const own = [...(await readNodes(reader, top.find((node) => nameOf(node) === ".cairn")!.subtree!))];
    const before = await readBlob(reader, own[0]!.content!, DATA_BLOB);
    const bytes = Buffer.from(change(Buffer.from(before).toString("utf8")));
    const subtree = put(own, "manifest.json", { content: add("data", bytes), size: bytes.length });
    return put(top, ".cairn", { subtree });
  });
}

/** A snapshot in which the node at a path from the topmost tree has changed fields; returns its id. */
export async function withNode(
  opened: OpenedRepository,
  snapshotId: string,
  path: string,
  change: (node: TreeNode, rewriting: Rewriting) => Promise<Partial<TreeNode>>,
): Promise<string> {
  return rewritten(opened, snapshotId, async (rewriting) => {
    const changed = async (nodes: TreeNode[], [name = "", ...below]: string[]): Promise<Uint8Array> => {
      const node = nodes.find((each) => nameOf(each) === name)!;
      if (below.length === 0) return rewriting.put(nodes, name, await change(node, rewriting));
      const inside = [...(await readNodes(rewriting.reader, node.subtree!))];
      return rewriting.put(nodes, name, { subtree: await changed(inside, below) });
    };
    return changed(rewriting.top, path.split("/"));
  });
}

/**
 * A snapshot in which the sealed tree of a folder does not match its id: each folder in it is that folder again.
 * `path`: the folder's, from the topmost tree. Returns the snapshot's id and the tree's.
 */
export async function withTreeOfItself(
  opened: OpenedRepository,
  snapshotId: string,
  path: string,
): Promise<{ snapshot: string; tree: string }> {
  const id = sha256(Buffer.from(`another content than that of ${path}`));
  const snapshot = await withNode(opened, snapshotId, path, async ({ subtree }, { reader, add }) => {
    const inside = await readNodes(reader, subtree!);
    const around = Array.from(inside, (node) => (node.subtree === undefined ? node : { ...node, subtree: id }));
    return { subtree: add("tree", encodeTree(around), id) };
  });
  return { snapshot, tree: objectIdOf(id) };
}

/** A snapshot in which the one piece of a file, sealed and of the right length, does not match its id. Returns its id. */
export async function withAnotherPiece(
  opened: OpenedRepository,
  snapshotId: string,
  path: string,
  more: Partial<TreeNode> = {},
): Promise<string> {
  const id = sha256(Buffer.from(`another content than that of ${path}`));
  return withNode(opened, snapshotId, path, async ({ size }, { add }) => {
    return { ...more, content: add("data", Buffer.alloc(size, "another "), id) };
  });
}

/**
 * Two backups of the folder that hold each blob twice, like two simultaneous ones: the second does not know the index
 * files of the first. Returns the packs of each.
 */
export async function storedTwice({ client, repository, place, root }: BackupScene): Promise<[string[], string[]]> {
  await client.createBackup(repository, { save: true });
  const first = packFiles(place);
  const [index, aside] = [join(place, "index"), join(root, "aside")];
  renameSync(index, aside);
  mkdirSync(index);
  rmSync(process.env["XDG_CACHE_HOME"]!, { recursive: true });
  await client.createBackup(repository, { tags: ["again"] });
  for (const name of readdirSync(aside)) renameSync(join(aside, name), join(index, name));
  return [first, packFiles(place).filter((file) => !first.includes(file))];
}

function packFiles(place: string): string[] {
  const entries = readdirSync(join(place, "data"), { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
}

/** Loses packs, or overwrites bytes from offset 20: in the first blob of each pack, or in all. */
export function spoil(files: readonly string[], how: "lost" | "first blob" | "all blobs"): void {
  for (const file of files) {
    if (how === "lost") rmSync(file);
    else {
      const bytes = readFileSync(file).map((byte, at) =>
        at === 20 || (at > 20 && how === "all blobs") ? byte ^ 1 : byte,
      );
      chmodSync(file, 0o600);
      writeFileSync(file, bytes);
    }
  }
}

/** Flips a byte of a stored blob. */
export async function damageBlob(at: BackupScene, id: string): Promise<void> {
  const { file, offset } = await placeOf(at, id);
  const bytes = readFileSync(file);
  bytes[offset + 20]! ^= 1;
  chmodSync(file, 0o600);
  writeFileSync(file, bytes);
}

/** The file of the pack that a blob lies in. */
export async function packWith(at: BackupScene, id: string): Promise<string> {
  const { file } = await placeOf(at, id);
  chmodSync(file, 0o600);
  return file;
}

async function placeOf({ repository, place }: BackupScene, id: string): Promise<{ file: string; offset: number }> {
  for (const name of readdirSync(join(place, "index"))) {
    const { packs } = (await repository.cat("index", name)).content as {
      packs: { id: string; blobs: { id: string; offset: number }[] }[];
    };
    for (const { id: pack, blobs } of packs) {
      const blob = blobs.find((each) => each.id === id);
      if (blob !== undefined) return { file: join(place, "data", pack.slice(0, 2), pack), offset: blob.offset };
    }
  }
  throw new Error(`no index lists ${id}`);
}

/** The node at a path from the topmost tree of a snapshot, as restic's JSON has it. */
export async function nodeAt(
  repository: BackupRepository,
  snapshot: string,
  path: string,
): Promise<{ subtree?: string; content?: string[] }> {
  let { tree } = (await repository.cat("snapshot", snapshot)).content as { tree: string };
  let found: { subtree?: string; content?: string[] } = { subtree: tree };
  for (const name of path.split("/").filter((part) => part !== "")) {
    tree = found.subtree!;
    const { nodes } = (await repository.cat("tree", tree)).content as {
      nodes: { name: string; subtree?: string; content?: string[] }[];
    };
    found = nodes.find((node) => node.name === name)!;
  }
  return found;
}
