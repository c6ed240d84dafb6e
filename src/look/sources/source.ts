import { isDeepStrictEqual } from "node:util";
import { losslessByPath } from "../../archive/write/exact-nodes.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { folderOf, joinPath, latin1 } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import { nodeNamed, pairsByName, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { displayPath, movedBelow, quotedPath } from "../../fs/paths/safe-path.ts";
import { collectPaced, newPacer } from "../../pacer.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { type Difference, exactDifferences, type ExactFields, findNode } from "../../workspace/points/tree-diff.ts";

/** No bytes: the path of a state's root, and an empty content. */
export const NOTHING = new Uint8Array(0);

/** A file and its path below the root of a source. */
export interface FileAt {
  readonly path: Uint8Array;
  readonly node: TreeNode;
}

/**
 * A readable state of a folder: the present folder, a point on any engine, a snapshot of any repository, or a directory
 * in one of them. `list` and `raw` do not wait: in a far
 * repository the caller must `bring` the trees first.
 */
export interface Source extends TreeSource {
  /** Reads the facts that trees cannot hold. Throws `damaged` if their record is damaged. */
  facts(): Promise<SourceFacts>;
  /** The store that has the content. In one store equal files have equal ids. */
  readonly store: string;
  /** The polynomial by which large files were cut into blobs. */
  readonly cutBy: string;
  /** The raw path of the folder from whose paths the numbers of hard links are made; null: by another program. */
  readonly linksFrom: Uint8Array | null;
  /** The error that explains why the trees lack a saved entry, for example a database whose record is lost. */
  readonly lacking?: CairnError | undefined;
  /** True if trees must be brought before they are listed. */
  readonly isFar: boolean;
  /** Fetches these trees; with `below` all trees below them, too, several packs at once. Does nothing for near trees. */
  bring(trees: readonly Uint8Array[], below: boolean): Promise<void>;
  /** Lists a directory that need not have been brought, and whose pack another process may have moved. */
  nodes(directory: Uint8Array): Promise<TreeNodes>;
  /** Yields the content of each file in order. The caller reads one to its end before it asks for the next. */
  contents(files: readonly FileAt[], signal: AbortSignal | undefined): AsyncGenerator<AsyncIterable<Uint8Array>>;
}

export type SourceFacts = Pick<Manifest, "lossless" | "fileHashes" | "omitted">;

export const NO_FACTS: SourceFacts = { lossless: [], fileHashes: [], omitted: [] };

/** Returns the node at a path; null if there is none. The path is not empty. */
export async function entryIn(source: Source, path: Uint8Array): Promise<TreeNode | null> {
  let directory: Uint8Array | undefined = source.root;
  let node: TreeNode | null = null;
  for (const name of latin1(path).split("/")) {
    if (directory === undefined) return null;
    node = nodeNamed(await source.nodes(directory), Buffer.from(name, "latin1")) ?? null;
    directory = node?.subtree;
  }
  return node;
}

/** Returns the directory at a path of a near source as a source. Throws `not_found`, and `conflict` for another entry. */
export function below(source: Source, path: Uint8Array, name: string): Source {
  if (path.length === 0) return source;
  const node = findNode(source, path);
  if (node === null) throw new CairnError("not_found", `${displayPath(path).path} is not in ${name}`);
  if (node.type !== "dir")
    throw new CairnError("conflict", `${quotedPath(path)} is not a folder in ${name}`, {
      hint: "compare the whole states, and choose the entry with --path",
    });
  const moved = movedBelow(path);
  return {
    ...source,
    root: node.subtree!,
    linksFrom: source.linksFrom === null ? null : path,
    facts: async () => {
      const { lossless, fileHashes, omitted } = await source.facts();
      return { lossless: moved(lossless), fileHashes: moved(fileHashes), omitted: moved(omitted) };
    },
    contents: (files, signal) =>
      source.contents(
        files.map((file) => ({ ...file, path: joinPath(path, file.path) })),
        signal,
      ),
  };
}

/**
 * Lists the differences of two states in raw pre-order, and the entries that `after` lacks because they could not be
 * read. If the record of a state's facts is damaged, its trees alone are compared. Files of two stores that were cut
 * into other blobs are compared by their hashes, else by their bytes.
 */
export async function differencesBetween(
  before: Source,
  after: Source,
  signal: AbortSignal | undefined,
): Promise<{ all: readonly Difference[]; unread: SourceFacts["omitted"] }> {
  await bringDiffering(before, after);
  const facts = { before: await factsOrNone(before), after: await factsOrNone(after) };
  const fields = { before: facts.before.lossless, after: facts.after.lossless };
  for (const source of [before, after]) await bringAbove(source, fields);
  const found = await collectPaced(exactDifferences(before, after, fields), newPacer(signal));
  const all = areNumbersAlike(before, after) ? found : found.flatMap((each) => without(each, "links") ?? []);
  const sides = [
    { source: before, hashes: hashesIn(facts.before) },
    { source: after, hashes: hashesIn(facts.after) },
  ] as const;
  return {
    all: before.store === after.store ? all : await settled(all, sides, signal),
    unread: facts.after.omitted,
  };
}

/**
 * True if the numbers of hard links mean the same in both states. Other programs store the inode of the disk. Ours
 * derive the number from the path of a file's first name, which differs in another folder.
 */
export function areNumbersAlike({ linksFrom: a }: LinkNumbers, { linksFrom: b }: LinkNumbers): boolean {
  return a !== null && isEqual(a, b);
}

export type LinkNumbers = Pick<Source, "linksFrom">;

/** Returns a difference without an aspect; null if the entries differ in no other one. */
export function without(difference: Difference, aspect: Difference["aspects"][0]): Difference | null {
  const { before, after, aspects } = difference;
  if (!aspects.includes(aspect)) return difference;
  const others = aspects.filter((each) => each !== aspect);
  return others.length === 0 && before !== null && after !== null ? null : { ...difference, aspects: others };
}

async function factsOrNone(source: Source): Promise<SourceFacts> {
  try {
    return await source.facts();
  } catch (error) {
    if (toCairnError(error).code !== "damaged") throw error;
    return NO_FACTS;
  }
}

/** Fetches the trees that differ between two states, with one request for each depth. */
export async function bringDiffering(before: Source, after: Source): Promise<void> {
  if (!before.isFar && !after.isFar) return;
  let pairs: Trees[] = [{ before: before.root, after: after.root }];
  while (pairs.length > 0) {
    for (const [side, source] of Object.entries({ before, after }))
      await source.bring(
        pairs.flatMap((pair) => pair[side as keyof Trees] ?? []),
        false,
      );
    pairs = pairs.flatMap((pair) => differingBelow(pair, before, after));
  }
}

/** Fetches the folders of entries whose fields differ. Such a folder may have one tree in both states. */
async function bringAbove(source: Source, fields: ExactFields): Promise<void> {
  if (!source.isFar) return;
  const [one, other] = [losslessByPath(fields.before), losslessByPath(fields.after)];
  const differing = [...one.keys(), ...other.keys()].filter(
    (path) => !isDeepStrictEqual(one.get(path), other.get(path)),
  );
  const folders = new Set(differing.map(folderOf));
  for (const folder of folders) {
    const node = folder === "" ? null : await entryIn(source, Buffer.from(folder, "latin1"));
    if (node?.subtree !== undefined) await source.bring([node.subtree], false);
  }
}

interface Trees {
  before: Uint8Array | null;
  after: Uint8Array | null;
}

function differingBelow(pair: Trees, before: Source, after: Source): Trees[] {
  const found: Trees[] = [];
  const nodes = pairsByName(
    pair.before === null ? [] : before.list(pair.before),
    pair.after === null ? [] : after.list(pair.after),
  );
  for (const { before: a, after: b } of nodes) {
    const trees = { before: a?.subtree ?? null, after: b?.subtree ?? null };
    if (trees.before === null ? trees.after !== null : !isEqual(trees.before, trees.after)) found.push(trees);
  }
  return found;
}

function isEqual(a: Uint8Array, b: Uint8Array | null): boolean {
  return b !== null && Buffer.compare(a, b) === 0;
}

interface Side {
  source: Source;
  /** SHA-256 of large files, by path in latin1 */
  hashes: ReadonlyMap<string, Uint8Array>;
}

function hashesIn({ fileHashes }: SourceFacts): Side["hashes"] {
  return new Map(fileHashes.map(({ path, sha256 }) => [latin1(path), sha256]));
}

/** Drops the aspect `content` of files with the same content. */
async function settled(
  all: readonly Difference[],
  [one, other]: readonly [Side, Side],
  signal: AbortSignal | undefined,
): Promise<readonly Difference[]> {
  const found: Difference[] = [];
  for (const difference of all) {
    const { path, before, after, aspects } = difference;
    const isOpen = aspects.includes("content") && before?.type === "file" && before.size === after!.size;
    const isSame =
      isOpen && (await haveSameContent([one, { path, node: before }], [other, { path, node: after! }], signal));
    const left = isSame ? without(difference, "content") : difference;
    if (left !== null) found.push(left);
  }
  return found;
}

async function haveSameContent(
  [one, a]: readonly [Side, FileAt],
  [other, b]: readonly [Side, FileAt],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  // The id of a file's only blob is the file's SHA-256.
  const hashOf = ({ hashes }: Side, { path, node: { content } }: FileAt): Uint8Array | undefined =>
    content?.length === 32 ? content : hashes.get(latin1(path));
  const hashes = [hashOf(one, a), hashOf(other, b)] as const;
  if (hashes[0] !== undefined && hashes[1] !== undefined) return isEqual(hashes[0], hashes[1]);
  const isCutAlike = a.node.content?.length !== 32 && b.node.content?.length !== 32;
  if (isCutAlike && one.source.cutBy === other.source.cutBy) return false;
  return haveSameBytes(wholeOf(one.source, a, signal), wholeOf(other.source, b, signal));
}

/** Yields the whole content of a file. */
export async function* wholeOf(
  source: Source,
  file: FileAt,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  for await (const content of source.contents([file], signal)) yield* content;
}

async function haveSameBytes(a: AsyncGenerator<Uint8Array>, b: AsyncGenerator<Uint8Array>): Promise<boolean> {
  let rest: Uint8Array = new Uint8Array(0);
  try {
    for await (const piece of a) {
      for (let at = 0; at < piece.length;) {
        if (rest.length === 0) {
          const { value, done } = await b.next();
          if (done === true) return false;
          rest = value;
        }
        const length = Math.min(piece.length - at, rest.length);
        if (Buffer.compare(piece.subarray(at, at + length), rest.subarray(0, length)) !== 0) return false;
        [at, rest] = [at + length, rest.subarray(length)];
      }
    }
    return rest.length === 0 && (await b.next()).done === true;
  } finally {
    await b.return(undefined);
  }
}
