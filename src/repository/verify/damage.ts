import type { CairnError } from "../../errors.ts";
import { hex, latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { DATA_BLOB, TREE_BLOB, type BlobIndex } from "../index/blob-index.ts";
import type { BlobSource } from "../read/blob-source.ts";
import { EntrySet } from "../index/entry-set.ts";
import { type TreeAt, walkTrees } from "../trees/walk-trees.ts";
import type { Consequence, Structure } from "./structure.ts";

/** The most paths that are kept of each tree; beyond that, one path for each further object to blame. */
const MAX_PATHS = 10_000;
/** The most paths for one problem. If there are more, each root has some. */
const MAX_CONSEQUENCES = 1000;

/** A blob that is unreadable at all its places. */
export interface DamagedBlob {
  readonly why: string;
  /** Name of the pack to blame; absent if the blob itself is to blame. */
  readonly pack?: string;
}

/** A path that cannot be restored as it was. */
export interface Damage {
  /** Path from the examined tree, in latin1; empty for the tree itself. */
  readonly path: string;
  readonly kind: "tree" | "content";
  readonly detail: string;
  /** Hex id of the blob to blame; empty if there is none. */
  readonly object: string;
  readonly pack?: string | undefined;
}

export interface Damages {
  readonly list: readonly Damage[];
  /** Number of paths that are not in the list. */
  readonly more: number;
}

const NONE: Damages = { list: [], more: 0 };

export interface DamageFinderOptions {
  readonly blobs: BlobSource;
  /** Damaged blobs, by index entry. */
  readonly damaged: ReadonlyMap<number, DamagedBlob>;
  /** Reasons why a whole file is damaged, by its content (latin1 of its blob ids). */
  readonly files?: ReadonlyMap<string, string> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Finds the paths that damage affects. Examines each tree once, even if several roots share it. */
export class DamageFinder {
  readonly #options: DamageFinderOptions;
  readonly #index: BlobIndex;
  readonly #sound: EntrySet;
  readonly #broken = new Map<number, Damages>();

  constructor(options: DamageFinderOptions) {
    this.#options = options;
    this.#index = options.blobs.index;
    this.#sound = new EntrySet(this.#index.count);
  }

  /** Returns the damaged paths of a tree and everything below. `except`: a tree that is skipped. */
  async below(tree: Uint8Array, except: Uint8Array | null = null): Promise<Damages> {
    return walkTrees<Damages>(
      tree,
      this.#options.blobs.listTree,
      {
        known: ({ id }) => (except !== null && Buffer.compare(id, except) === 0 ? NONE : this.#known(id)),
        unread: (at, error) => this.#unread(at, error),
        done: ({ id }, nodes) => this.#remember(id, this.#of(nodes)),
      },
      this.#options.signal,
    );
  }

  #known(id: Uint8Array): Damages | undefined {
    const entry = this.#index.lookup(id, 0, TREE_BLOB);
    if (entry < 0) return treeDamage(`the index does not know tree ${hex(id).slice(0, 12)}`, hex(id));
    if (this.#sound.has(entry)) return NONE;
    const damaged = this.#options.damaged.get(entry);
    if (damaged !== undefined)
      return treeDamage(`tree ${hex(id).slice(0, 12)} cannot be read: ${damaged.why}`, hex(id), damaged.pack);
    return this.#broken.get(entry);
  }

  #unread({ id }: TreeAt, { message }: CairnError): Damages {
    return this.#remember(id, treeDamage(`tree ${hex(id).slice(0, 12)} cannot be read: ${message}`, hex(id)));
  }

  #remember(id: Uint8Array, damages: Damages): Damages {
    const entry = this.#index.lookup(id, 0, TREE_BLOB);
    if (damages.list.length === 0) this.#sound.add(entry);
    else this.#broken.set(entry, damages);
    return damages;
  }

  #of(nodes: Iterable<readonly [TreeNode, Damages | undefined]>): Damages {
    const list: Damage[] = [];
    const named = new Set<string>();
    let more = 0;
    const add = (damage: Damage): void => {
      const toBlame = damage.pack ?? damage.object;
      if (list.length >= MAX_PATHS && named.has(toBlame)) return void more++;
      named.add(toBlame);
      list.push(damage);
    };
    for (const [node, inside] of nodes) {
      const path = latin1(node.name);
      if (node.type === "irregular")
        add({ path, kind: "tree", object: "", detail: "the tree has an entry of a type that no save point records" });
      const problem = this.#fileProblem(node);
      if (problem !== null) add({ path, kind: "content", ...problem });
      if (inside === undefined) continue;
      more += inside.more;
      for (const each of inside.list) add({ ...each, path: each.path === "" ? path : `${path}/${each.path}` });
    }
    return list.length === 0 ? NONE : { list, more };
  }

  #fileProblem({ content, size }: TreeNode): Pick<Damage, "detail" | "object" | "pack"> | null {
    if (content === undefined) return null;
    let held = 0;
    for (let at = 0; at < content.length; at += 32) {
      const entry = this.#index.lookup(content, at, DATA_BLOB);
      const id = hex(content.subarray(at, at + 32));
      if (entry < 0) return { object: id, detail: `the index does not know blob ${id.slice(0, 12)}` };
      const damaged = this.#options.damaged.get(entry);
      if (damaged !== undefined)
        return { object: id, pack: damaged.pack, detail: `blob ${id.slice(0, 12)} cannot be read: ${damaged.why}` };
      held += this.#index.table.plainLengthOf(entry);
    }
    const whole = this.#options.files?.get(latin1(content));
    if (whole !== undefined) return { object: "", detail: whole };
    return held === size ? null : { object: "", detail: `its blobs hold ${held} bytes, its tree says ${size}` };
  }
}

function treeDamage(detail: string, object: string, pack?: string): Damages {
  return { list: [{ path: "", kind: "tree", detail, object, pack }], more: 0 };
}

/**
 * Fills `consequences` of the problems whose blobs a root needs: up to 1000 paths of each, and at least one of each
 * root. Problems of missing and cut packs get the paths of their blobs. `sound`: entries that are damaged in only one
 * of their packs.
 */
export async function explain(
  { problems, roots, blobs, lost }: Pick<Structure, "problems" | "roots" | "blobs" | "lost">,
  { sound, signal }: { sound?: ReadonlyMap<number, unknown>; signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const { index } = blobs;
  const damaged = new Map<number, DamagedBlob>();
  let isAnyMissing = false;
  for (const { kind, object, detail } of problems) {
    isAnyMissing ||= kind === "blob_missing" || kind === "tree_missing";
    if (kind !== "blob_damaged" && kind !== "tree_damaged") continue;
    for (const type of [DATA_BLOB, TREE_BLOB]) {
      const entry = index.lookup(Buffer.from(object, "hex"), 0, type);
      if (entry >= 0) damaged.set(entry, { why: detail });
    }
  }
  for (const entry of lost)
    damaged.set(entry, { why: "its pack is missing or truncated", pack: hex(index.place(entry).pack) });
  for (const entry of sound?.keys() ?? []) damaged.delete(entry);
  if (damaged.size === 0 && !isAnyMissing) return;
  const finder = new DamageFinder({ blobs, damaged, signal });
  const byObject = new Map<string, Consequence[]>();
  for (const { label, tree } of roots)
    for (const { path, object, pack } of (await finder.below(tree)).list) {
      const consequence = { root: label, path: Buffer.from(path, "latin1") };
      for (const each of pack === undefined ? [object] : [object, pack]) {
        const list = byObject.get(each);
        if (list === undefined) byObject.set(each, [consequence]);
        else list.push(consequence);
      }
    }
  for (const problem of problems) {
    if (problem.kind === "pack_damaged") continue;
    const consequences = byObject.get(problem.object);
    if (consequences !== undefined) problem.consequences = someOfEachRoot(consequences);
  }
}

function someOfEachRoot(consequences: Consequence[]): Consequence[] {
  if (consequences.length <= MAX_CONSEQUENCES) return consequences;
  const byRoot = [...Map.groupBy(consequences, ({ root }) => root).values()];
  const share = Math.max(1, Math.floor(MAX_CONSEQUENCES / byRoot.length));
  return byRoot.flatMap((ofRoot) => ofRoot.slice(0, share));
}
