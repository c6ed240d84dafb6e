import { append } from "../append.ts";
import { pairsByName, type TreeNode, type TreeNodes } from "../formats/restic/tree.ts";
import { displayPath, rawBytes } from "../fs/paths/safe-path.ts";
import { newPacer, type Pacer } from "../pacer.ts";
import { differences } from "../workspace/points/tree-diff.ts";
import type { ListedSnapshot } from "../repository/repository.ts";
import type { DiffBackupsEntry, DiffBackupsOptions, DiffBackupsResult, PathInput } from "../contract/index.ts";
import type { BlobSource } from "../repository/read/blob-source.ts";
import { pathIn } from "../repository/trees/walk-trees.ts";
import { kindOf } from "../workspace/points/listed-entry.ts";
import { findSnapshot, warnOfUnreadable } from "./open/snapshots.ts";
import { reading } from "./open/session.ts";
import type { OpenRepository } from "./open/open-repository.ts";
import { savedEntry, savedNodes, snapshotContent, type SnapshotContent } from "./open/content.ts";
import { contentOf } from "./open/paths.ts";

const LIMIT = 100_000;

/** Compares two snapshots, or folders of them, by the trees of the saved folders. Equal trees are not read. */
export async function diffBackups(
  access: OpenRepository,
  words: { from: string; to: string },
  options: DiffBackupsOptions,
): Promise<DiffBackupsResult> {
  return reading(access, options, async (session) => {
    const { reader } = session;
    const [from, to] = [findSnapshot(session, words.from), findSnapshot(session, words.to)];
    warnOfUnreadable(access, session.damaged, options);
    const sideOf = async (listed: ListedSnapshot, subfolder: PathInput | undefined): Promise<SnapshotContent> =>
      contentOf(reader, { listed, content: await snapshotContent(reader, listed.snapshot) }, subfolder);
    const before = await sideOf(from, options.fromSubfolder);
    const after = await sideOf(to, options.toSubfolder);
    const walk = new DiffWalk(reader, { pace: newPacer(options.signal), byLinks: areNumbersAlike(before, after) });
    const isMixed = isOfFolder(before) !== isOfFolder(after);
    await walk.between(
      isMixed && !isOfFolder(before) ? await folderLike(reader, after, { content: before, ...from }) : before,
      isMixed && !isOfFolder(after) ? await folderLike(reader, before, { content: after, ...to }) : after,
    );
    const entries = walk.entries.slice(0, LIMIT);
    return { ...access.info, from: from.id, to: to.id, entries, truncated: walk.entries.length > LIMIT };
  });
}

/**
 * Other programs store the inode of the disk, which means nothing in another snapshot. Ours derive the number from the
 * path of a file's first name, which differs in another folder.
 */
function areNumbersAlike(before: SnapshotContent, after: SnapshotContent): boolean {
  const folders = [before, after].map(({ part }) => rawBytes(part?.path ?? ""));
  return [before, after].every(({ manifest }) => manifest !== null) && folders[0]!.equals(folders[1]!);
}

/** True if `root` is the saved folder itself, without directories above it. */
function isOfFolder({ node, only }: SnapshotContent): boolean {
  return node !== null || only !== null;
}

/**
 * The one folder of another program's snapshot. Its trees start at the path's first folder, at some later part of the
 * path, or at the folder itself, which no field says: compares the tree that shares most names with ours.
 */
async function folderLike(
  reader: BlobSource,
  ours: Side,
  { content, snapshot: { tree, paths } }: ListedSnapshot & { content: Side },
): Promise<Side> {
  const parts = paths.length === 1 ? paths[0]!.split("/") : [];
  const sides: Side[] = [];
  for (let from = 0; from < parts.length; from++) {
    const found = await savedEntry(reader, { tree, paths: [parts.slice(from).join("/")] }, { byName: true });
    if (found !== null) sides.push(found);
  }
  const names = await savedNodes(reader, ours);
  let best = content;
  let most = -1;
  for (const side of [...sides, content]) {
    let shared = 0;
    for (const { before, after } of pairsByName(names, await savedNodes(reader, side)))
      if (before !== null && after !== null) shared++;
    if (shared > most) [best, most] = [side, shared];
  }
  return best;
}

type Side = Pick<SnapshotContent, "root" | "only">;

class DiffWalk {
  readonly entries: DiffBackupsEntry[] = [];
  readonly #reader: BlobSource;
  readonly #pace: Pacer;
  /** True if inode numbers tell which names are one file. */
  readonly #byLinks: boolean;
  /** Roots of the trees that are still to be read, the next one last. */
  readonly #stack: Uint8Array[] = [];

  constructor(reader: BlobSource, { pace, byLinks }: { pace: Pacer; byLinks: boolean }) {
    this.#reader = reader;
    this.#pace = pace;
    this.#byLinks = byLinks;
  }

  async between(from: Side, to: Side): Promise<void> {
    append(this.#stack, unequalRoots(from, to));
    if (this.#stack.length > 0) await this.#trees(from, to, "");
  }

  /** Compares two trees whose roots are the last of the stack. */
  async #trees(from: Side | undefined, to: Side | undefined, path: string): Promise<void> {
    if (this.entries.length > LIMIT) return;
    await this.#pace();
    const before = await this.#nodes(from);
    const after = await this.#nodes(to);
    const roots: Uint8Array[][] = [];
    for (const pair of pairsByName(before, after)) roots.push(unequalRoots(below(pair.before), below(pair.after)));
    append(this.#stack, roots.toReversed().flat());
    for (const { before: a, after: b } of pairsByName(before, after)) {
      const own = pathIn(path, (a ?? b)!.name);
      this.#compare(own, a, b);
      if (unequalRoots(below(a), below(b)).length > 0) await this.#trees(below(a), below(b), own);
    }
  }

  async #nodes(side: Side | undefined): Promise<TreeNodes> {
    if (side === undefined) return [];
    this.#stack.pop();
    return savedNodes(this.#reader, side, this.#stack);
  }

  #compare(path: string, a: TreeNode | null, b: TreeNode | null): void {
    const shown = displayPath(Buffer.from(path, "latin1"));
    const sizes = {
      ...(a?.type === "file" ? { size_before: a.size } : {}),
      ...(b?.type === "file" ? { size_after: b.size } : {}),
    };
    const kind = kindOf(b ?? a!);
    const change = a === null ? "added" : b === null ? "removed" : "modified";
    const differ = a === null || b === null ? [] : differences(a, b);
    const aspects = differ.filter((each) => each !== "links" || this.#byLinks);
    if (change !== "modified" || aspects.length > 0) this.entries.push({ ...shown, change, kind, aspects, ...sizes });
  }
}

/** In the order of the stack; empty if both are the same. */
function unequalRoots(from: Side | undefined, to: Side | undefined): Uint8Array[] {
  if (from !== undefined && to !== undefined && Buffer.compare(from.root, to.root) === 0) return [];
  return [to, from].flatMap((side) => (side === undefined ? [] : [side.root]));
}

function below(node: TreeNode | null): Side | undefined {
  return node?.subtree === undefined ? undefined : { root: node.subtree, only: null };
}
