import { hostname } from "node:os";
import { sha256 } from "../../crypto/hash.ts";
import { directoryNode } from "../../engines/copy/snapshot-tree.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { compareBytes } from "../../formats/bytes.ts";
import { PROGRAM } from "../../formats/program.ts";
import type { Snapshot } from "../../formats/snapshot.ts";
import { encodeTree, type TreeNode } from "../../formats/tree.ts";
import { TreeReferences } from "../../formats/tree-references.ts";
import { currentUser } from "../../fs/users.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import { BlobIndex, TREE_BLOB } from "../../repository/blob-index.ts";
import { EntrySet } from "../../repository/entry-set.ts";
import { LiveSet, packsAhead, tellsOfDamage } from "../../repository/live.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import type { PackedBlobs } from "../../repository/packed-blobs.ts";
import { TreeMender } from "../../repository/tree-mender.ts";
import type { RecoverBackupsOptions, RecoverBackupsResult, RecoveredSnapshot } from "../contract.ts";
import { type Look, lookingBy } from "./look.ts";
import { RECOVERED, RECOVERED_HERE } from "./public-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { pointTree, type PointTree, TreeSizes } from "./recovered-point.ts";
import { nameOf, readNodes } from "./snapshot-content.ts";
import { requireIndexed } from "./snapshot-rewriter.ts";

/** Where what gathers others says that it was, as restic's does. */
const GATHERED = "/recover";
const NAME_DIGITS = 8;

/**
 * Makes snapshots of trees that are in a repository and that no snapshot leads to: those of save points and streams, told by
 * their manifests, become one each. All others are gathered in one, as restic has it, without what is lost of them.
 *
 * Steps, under an exclusive lock, since what a running backup has written has no snapshot yet: trees of what lacks something,
 * and the one that gathers → their index → each snapshot's file ●. A kill leaves trees that the next call finds, the one that gathers too.
 */
export async function recoverBackups(
  access: RepositoryAccess,
  options: RecoverBackupsOptions,
): Promise<RecoverBackupsResult> {
  const started = Date.now();
  const run = async (lock: RepositoryLock | null): Promise<Found> => {
    const index = await BlobIndex.load(access.repository, null, options.signal);
    const work = async (look: Look): Promise<Found> => new Recovery({ ...look, access, options, lock }).run();
    return lookingBy(access, index, { options, work });
  };
  const isDry = options.dryRun === true;
  const found = isDry
    ? await access.reading(options, async () => run(null))
    : await access.locked(true, options, async (lock) => run(lock));
  return { ...access.info, dry_run: isDry, ...found, duration_ms: Date.now() - started };
}

type Found = Pick<RecoverBackupsResult, "recovered" | "gathered" | "unreadable">;

interface RecoveryParts extends Look {
  access: RepositoryAccess;
  options: RecoverBackupsOptions;
  /** Null: nothing is written. */
  lock: RepositoryLock | null;
}

interface Gathered {
  /** As it was found. */
  id: Uint8Array;
  /** Without what is lost. */
  tree: Uint8Array;
  lost: number;
}

class Recovery {
  readonly #parts: RecoveryParts;
  readonly #blobs: PackedBlobs | null;
  readonly #unreadable: Found["unreadable"] = [];
  readonly #sizes: TreeSizes;
  readonly #live: LiveSet;

  constructor(parts: RecoveryParts) {
    this.#parts = parts;
    this.#blobs = parts.lock === null ? null : parts.access.packedBlobs(parts.index, parts.lock);
    this.#sizes = new TreeSizes(parts);
    this.#live = new LiveSet(parts.index);
  }

  async run(): Promise<Found> {
    const { access, index } = this.#parts;
    try {
      await requireIndexed(access, index);
      const roots = await this.#withoutGatherers(await this.#roots());
      const { points, others } = await this.#sorted(roots);
      const made: [Omit<RecoveredSnapshot, "new_id">, Snapshot][] = points.map((point) => this.#ofPoint(point));
      const gathered = others.length === 0 ? null : await this.#gathered(others);
      await this.#blobs?.finish();
      failpoint("recover.trees-written");
      await this.#parts.lock?.recheck();
      const recovered: RecoveredSnapshot[] = [];
      for (const [each, snapshot] of made) recovered.push({ new_id: await this.#save(snapshot), ...each });
      if (gathered === null) return { recovered, gathered, unreadable: this.#unreadable };
      const { snapshot, trees } = gathered;
      return {
        recovered,
        gathered: { new_id: await this.#save(snapshot), created_at: snapshot.time, trees },
        unreadable: this.#unreadable,
      };
    } catch (error) {
      await this.#blobs?.abort();
      throw error;
    }
  }

  async #save(snapshot: Snapshot): Promise<string | null> {
    if (this.#parts.lock === null) return null;
    const id = await this.#parts.access.repository.saveSnapshot(snapshot);
    failpoint("recover.snapshot-written");
    return id;
  }

  /** Trees that no snapshot that can be read leads to, and no other such tree; by id. */
  async #roots(): Promise<Uint8Array[]> {
    const { access, index, reader, options } = this.#parts;
    const { snapshots } = await access.repository.listSnapshots(options.signal);
    const live = this.#live;
    const marking = {
      signal: options.signal,
      onTree: (done: number) => options.onProgress?.({ phase: "trees", done }),
    };
    await live.mark(
      snapshots.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex")),
      reader.viewTree,
      marking,
    );
    const lost: number[] = [];
    for (let entry = 0; entry < index.count; entry++)
      if (index.table.typeOf(entry) === TREE_BLOB && !live.has(entry)) lost.push(entry);
    const below = new EntrySet(index.count);
    const roots = await this.#readable(lost, below);
    return roots
      .filter((entry) => !below.has(entry))
      .map((entry) => Uint8Array.from(index.idOf(entry)))
      .sort(compareBytes);
  }

  /** Those that can be read; what they lead to is noted. */
  async #readable(entries: readonly number[], below: EntrySet): Promise<number[]> {
    const { index, reader, options } = this.#parts;
    const pace = newPacer(options.signal);
    const references = new TreeReferences();
    const left = [...entries];
    const readable: number[] = [];
    for (let entry = left.pop(); entry !== undefined; entry = left.pop()) {
      await pace();
      const id = Uint8Array.from(index.idOf(entry));
      try {
        const ahead = (): Iterable<Uint8Array> => packsAhead(index, left, (each) => each);
        references.read(await reader.viewTree({ ...index.place(entry), id }, ahead));
      } catch (error) {
        this.#leave(id, error);
        continue;
      }
      const { subtrees } = references;
      for (let at = 0; at < subtrees.length; at += 32) {
        const child = index.lookup(subtrees, at, TREE_BLOB);
        if (child >= 0) below.add(child);
      }
      readable.push(entry);
      if (readable.length % 1024 === 0)
        options.onProgress?.({ phase: "planning", done: readable.length, total: entries.length });
    }
    return readable;
  }

  /** What cannot be read stays out of reach, and is named. Throws what tells nothing of it. */
  #leave(tree: Uint8Array, error: unknown): void {
    const known = toCairnError(error);
    if (!tellsOfDamage(known)) throw known;
    this.#unreadable.push({ tree: objectIdOf(tree), detail: known.message });
  }

  /** In the place of trees that only gather others, which a call that was killed left, or a snapshot that was forgotten: those. */
  async #withoutGatherers(roots: readonly Uint8Array[]): Promise<Uint8Array[]> {
    const found = new Map<ObjectId, Uint8Array>();
    for (const root of roots) {
      const nodes = await readNodes(this.#parts, root);
      const trees = isGatherer(nodes) ? nodes.map(({ subtree }) => subtree!) : [root];
      for (const tree of trees) if (!this.#isLive(tree)) found.set(objectIdOf(tree), Uint8Array.from(tree));
    }
    return [...found.values()].toSorted(compareBytes);
  }

  #isLive(tree: Uint8Array): boolean {
    const entry = this.#parts.index.lookup(tree, 0, TREE_BLOB);
    return entry >= 0 && this.#live.has(entry);
  }

  async #sorted(roots: readonly Uint8Array[]): Promise<{ points: PointTree[]; others: Gathered[] }> {
    const { index, reader, options } = this.#parts;
    const onTree = (id: Uint8Array, bytes: Uint8Array): void => this.#blobs?.addNew("tree", id, bytes);
    const mender = new TreeMender({ index, readTree: reader.readTree, onTree, signal: options.signal });
    const points: PointTree[] = [];
    const others = new Map<ObjectId, Gathered>();
    for (const [done, id] of roots.entries()) {
      options.onProgress?.({ phase: "repairing", done, total: roots.length });
      try {
        const { tree, lost } = await mender.mend(id);
        const isEmpty = tree === null || (lost.length === 0 && (await readNodes(this.#parts, id)).length === 0);
        const point = isEmpty || lost.length > 0 ? null : await pointTree(this.#parts, id, this.#sizes);
        if (point !== null) points.push(point);
        else if (!isEmpty) others.set(objectIdOf(tree), { id, tree, lost: lost.length });
      } catch (error) {
        this.#leave(id, error);
      }
      await this.#blobs?.settle();
    }
    return { points, others: [...others.values()] };
  }

  #ofPoint({ tree, path, files, bytes, newest }: PointTree): [Omit<RecoveredSnapshot, "new_id">, Snapshot] {
    const time = momentOf(newest);
    const id = objectIdOf(tree);
    const now = new Date().toISOString();
    const summary = {
      backup_start: now,
      backup_end: now,
      total_files_processed: files,
      total_bytes_processed: bytes,
    };
    const tags = [RECOVERED, RECOVERED_HERE];
    const snapshot = { ...this.#snapshot(time, id, path), tags, program_version: PROGRAM, summary };
    return [{ created_at: time, paths: [path], tree: id, files, bytes }, snapshot];
  }

  /** One for all; nothing says that it is ours, as no manifest at its top would be its own. */
  async #gathered(
    others: readonly Gathered[],
  ): Promise<{ snapshot: Snapshot; trees: NonNullable<Found["gathered"]>["trees"] }> {
    let newest = 0;
    for (const { id } of others) newest = Math.max(newest, (await this.#sizes.of(id)).newest);
    const names = namesOf(others.map(({ tree }) => objectIdOf(tree)));
    const mtimeSec = Math.floor(Date.parse(momentOf(newest)) / 1000);
    const { uid, gid } = currentUser();
    const nodes = others.map(({ tree }, at) =>
      directoryNode(Buffer.from(names[at]!), tree, { mode: 0o755, uid, gid, mtimeSec, mtimeNs: 0 }),
    );
    const bytes = encodeTree(nodes.toSorted((a, b) => compareBytes(a.name, b.name)));
    const top = sha256(bytes);
    this.#blobs?.addNew("tree", top, bytes);
    return {
      snapshot: this.#snapshot(momentOf(newest), objectIdOf(top), GATHERED),
      trees: others.map(({ tree, lost }, at) => ({ tree: objectIdOf(tree), path: `/${names[at]}`, lost })),
    };
  }

  #snapshot(time: string, tree: ObjectId, path: string): Snapshot {
    const { options } = this.#parts;
    return {
      time,
      tree,
      paths: [path],
      hostname: options.hostname ?? hostname(),
      ...currentUser(),
      tags: [RECOVERED],
    };
  }
}

/** The newest time of what lies in a tree, as nothing else tells when it was saved: it is to be no `latest` for being found today. */
function momentOf(newest: number): string {
  return new Date(Math.min(Math.max(newest, 0) * 1000, Date.now())).toISOString();
}

/** What {@link Recovery} and restic's `recover` make: directories that are called by the beginnings of their trees' ids. */
function isGatherer(nodes: readonly TreeNode[]): boolean {
  return (
    nodes.length > 0 &&
    nodes.every(
      (node) =>
        node.subtree !== undefined &&
        node.name.length >= NAME_DIGITS &&
        objectIdOf(node.subtree).startsWith(nameOf(node)),
    )
  );
}

/** As short as they differ. */
function namesOf(ids: readonly string[]): string[] {
  let digits = NAME_DIGITS;
  while (new Set(ids.map((id) => id.slice(0, digits))).size < ids.length) digits++;
  return ids.map((id) => id.slice(0, digits));
}
