import { append } from "../append.ts";
import { latin1 } from "../formats/bytes.ts";
import type { PagesManifest } from "../formats/payloads/sqlite-pages.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { displayPath } from "../fs/paths/safe-path.ts";
import { CairnError, toCairnError } from "../errors.ts";
import type { DamagedInBackup, FindInBackupsOptions, FindInBackupsResult, FoundInBackup } from "../contract/index.ts";
import { objectIdOf } from "../ids.ts";
import { type BlobIndex, TREE_BLOB } from "../repository/index/blob-index.ts";
import type { BlobSource } from "../repository/read/blob-source.ts";
import { pathIn, type TreeAt, walkTrees } from "../repository/trees/walk-trees.ts";
import { kindOf } from "../workspace/points/listed-entry.ts";
import { mayHaveManifest } from "./open/content.ts";
import { chosenSnapshots } from "./open/snapshots.ts";
import { reading } from "./open/session.ts";
import { blobsLike, oneOf } from "./cat.ts";
import { pathMatcher } from "./open/paths.ts";
import type { OpenRepository } from "./open/open-repository.ts";
import { leadTo, readSomeNodes } from "../archive/databases/nodes.ts";
import { databaseFolders, readPagesManifest } from "../archive/databases/stored-database.ts";

const LIMIT = 10_000;

/**
 * Looks for a name or an object in snapshots, newest first. A tree that several snapshots share at the same path is read once.
 * A pattern with a slash is compared with whole paths (from `/`), any other with names; the id of a blob, a tree or a pack finds
 * the files and directories that it is part of.
 */
export async function findInBackups(
  access: OpenRepository,
  pattern: string,
  options: FindInBackupsOptions,
): Promise<FindInBackupsResult> {
  const limit = options.limit ?? LIMIT;
  const { object } = options;
  if (object !== undefined && options.ignoreCase === true)
    throw new CairnError("usage", `a ${object}'s id has no upper and lower case: --ignore-case is for names and paths`);
  const byName = object === undefined ? pathMatcher(pattern, options.ignoreCase === true) : null;
  return reading(access, options, async (session) => {
    const { damaged } = session;
    const chosen = chosenSnapshots(session, options).toReversed();
    const fits: Fits =
      byName === null
        ? holding(objectsOf(session.index, object!, pattern))
        : (_node, path) => path !== "" && byName(path);
    const walk = new FindWalk(session.reader, fits, options.signal);
    const result: FindInBackupsResult = { ...access.info, found: [], truncated: false, damaged: [] };
    for (const { name, error } of damaged) result.damaged.push({ snapshot_id: name, path: "/", detail: error.message });
    await session.bring(chosen.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex")));
    for (const { id, snapshot } of chosen) {
      const top = Buffer.from(snapshot.tree, "hex");
      const hits = await walk.snapshot(top);
      if (byName !== null && mayHaveManifest(snapshot)) append(hits, await walk.databases(top, snapshot.paths));
      append(
        result.damaged,
        walk.takeDamaged().map((each) => ({ ...each, snapshot_id: id })),
      );
      const room = limit - result.found.length;
      append(
        result.found,
        hits.slice(0, room).map((hit) => ({ ...hit, snapshot_id: id, created_at: snapshot.time })),
      );
      if (hits.length > room) return { ...result, truncated: true };
    }
    return result;
  });
}

type Hit = Omit<FoundInBackup, "snapshot_id" | "created_at">;
type Fits = (node: Pick<TreeNode, "content" | "subtree">, path: string) => boolean;

/** Ids of the blobs that a word means, in latin1. Throws `not_found`, `ambiguous`. */
function objectsOf(index: BlobIndex, object: "blob" | "tree" | "pack", word: string): Set<string> {
  const ids = new Set<string>();
  if (object !== "pack") {
    const name = oneOf(object, word, blobsLike(index, word, object === "tree" ? TREE_BLOB : null));
    return ids.add(Buffer.from(name, "hex").toString("latin1"));
  }
  const { table } = index;
  const packs: string[] = Array.from({ length: table.packCount }, (_, number) => objectIdOf(table.packId(number)));
  const pack = packs.indexOf(oneOf(object, word, packs));
  for (let entry = 0; entry < index.count; entry++)
    if (table.packOf[entry] === pack) ids.add(latin1(index.idOf(entry)));
  return ids;
}

function holding(ids: ReadonlySet<string>): Fits {
  return ({ content, subtree }) => {
    if (subtree !== undefined && ids.has(latin1(subtree))) return true;
    for (let at = 0; content !== undefined && at < content.length; at += 32)
      if (ids.has(latin1(content.subarray(at, at + 32)))) return true;
    return false;
  };
}

class FindWalk {
  readonly #reader: BlobSource;
  readonly #fits: Fits;
  readonly #signal: AbortSignal | undefined;
  /** By path and tree: the hits below it. */
  readonly #known = new Map<string, Hit[]>();
  #damaged: Omit<DamagedInBackup, "snapshot_id">[] = [];
  /** By the tree of a database's folder. */
  readonly #databases = new Map<string, PagesManifest>();

  constructor(reader: BlobSource, fits: Fits, signal: AbortSignal | undefined) {
    this.#reader = reader;
    this.#fits = fits;
    this.#signal = signal;
  }

  /** The topmost tree has an id instead of a name. */
  async snapshot(tree: Uint8Array): Promise<Hit[]> {
    const below = await walkTrees<Hit[]>(
      tree,
      async (id, _next, path = "") =>
        readSomeNodes(this.#reader, id, ({ type, ids, idCount, names, nameStart, nameEnd }) => {
          const own = `/${pathIn(path, names.subarray(nameStart, nameEnd))}`;
          return type === "dir" || this.#fits({ content: ids.subarray(0, idCount * 32) }, own);
        }),
      {
        known: (at) => this.#known.get(keyOf(at)),
        unread: (at, { message }) => {
          this.#damaged.push({ ...displayPath(Buffer.from(`/${at.path}`, "latin1")), detail: message });
          return this.#found(at, []);
        },
        done: (at, nodes) => {
          const hits: Hit[] = [];
          for (const [node, inside] of nodes) {
            const own = `/${pathIn(at.path, node.name)}`;
            if (this.#fits(node, own)) hits.push(hitOf(node, own));
            append(hits, inside ?? []);
          }
          return this.#found(at, hits);
        },
      },
      this.#signal,
    );
    if (!this.#fits({ subtree: tree }, "")) return below;
    return [{ path: "/", kind: "directory", size: null, modified_at: null }, ...below];
  }

  /** The databases of a snapshot that are stored page by page, at their own paths. */
  async databases(top: Uint8Array, paths: readonly string[]): Promise<Hit[]> {
    const reader = this.#reader;
    const hits: Hit[] = [];
    let lead: string | undefined;
    try {
      for (const folder of await databaseFolders(reader, top)) {
        const id = latin1(folder.subtree!);
        const node = this.#databases.get(id) ?? (await readPagesManifest(reader, folder.subtree!));
        this.#databases.set(id, node);
        lead ??= (await leadTo(reader, top, paths)).map((name) => `/${name}`).join("");
        const own = `${lead}/${latin1(node.path)}`;
        if (this.#fits(node.node, own)) hits.push(hitOf(node.node, own));
      }
    } catch (error) {
      const { code, message } = toCairnError(error);
      if (code !== "damaged" && code !== "newer_version") throw error;
      this.#damaged.push({ ...displayPath(Buffer.from("/.cairn/databases")), detail: message });
    }
    return hits;
  }

  #found(at: TreeAt, hits: Hit[]): Hit[] {
    this.#known.set(keyOf(at), hits);
    return hits;
  }

  /** Directories that could not be read since the last call. If several snapshots share one, only the first reports it. */
  takeDamaged(): Omit<DamagedInBackup, "snapshot_id">[] {
    const damaged = this.#damaged;
    this.#damaged = [];
    return damaged;
  }
}

function keyOf({ path, id }: TreeAt): string {
  return `${path}\0${latin1(id)}`;
}

function hitOf(node: TreeNode, path: string): Hit {
  return {
    ...displayPath(Buffer.from(path, "latin1")),
    kind: kindOf(node),
    size: node.type === "file" ? node.size : null,
    modified_at: new Date(Math.max(-8.64e15, Math.min(8.64e15, node.mtimeSec * 1000))).toISOString(),
  };
}
