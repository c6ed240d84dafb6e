import fs from "node:fs";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { presentSource } from "../../archive/scan/present-source.ts";
import { exactNode, losslessByPath } from "../../archive/write/exact-nodes.ts";
import type { LeftOut } from "../../contract/words.ts";
import { Sha256Stream } from "../../crypto/hash.ts";
import { compareBytes, joinPath, latin1 } from "../../formats/bytes.ts";
import { linkedInode, pairsByName, type TreeNode } from "../../formats/restic/tree.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { syscalls } from "../../fs/linux/syscalls.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { newArena } from "../../native.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import { DATA_BLOB } from "../../repository/index/blob-index.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { type SnapshotContent } from "../open/content.ts";
import { nodesOrNull } from "../../archive/databases/nodes.ts";

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants;
const WINDOW = 1024 * 1024;

/** The entries of a restore, and those known to differ from the snapshot. */
interface Written {
  /** the folder that was written */
  folder: Buffer;
  signal: AbortSignal | undefined;
  content: Pick<SnapshotContent, "root" | "manifest" | "placed">;
  /** raw paths; null: everything */
  chosen: readonly Uint8Array[] | null;
  /** entries that are lost, or listed as different, with everything below; raw paths */
  lost: readonly Uint8Array[];
  notSet: readonly { path: Uint8Array; aspects: readonly string[] }[];
  /** places where entries may exist that the restore did not write */
  others: "nowhere" | "beside what was chosen" | "anywhere";
}

export interface Compared {
  /** entries that differ from the snapshot, raw paths */
  wrong: Uint8Array[];
  /** entries that differ unexpectedly only in mode or other names, which not every file system keeps */
  unlike: LeftOut[];
  /** files whose content cannot be compared any more: the repository has lost it since the restore */
  untold: number;
}

/**
 * Compares a written folder, read again, with its snapshot entry by entry: kind, mode, size, content, link targets,
 * device numbers, and hard links. Serves if no digest of the whole can be equal: for parts, for folders with missing or
 * additional entries, and on file systems that lose metadata.
 */
export async function compareWritten(reader: BlobSource, found: ScanResult, written: Written): Promise<Compared> {
  return new Comparison(reader, found, written).run();
}

class Comparison {
  readonly #reader: BlobSource;
  readonly #written: Written;
  readonly #chosen: PathSelection | null;
  readonly #lost: PathSelection;
  /** Entries that were not made, with everything below. */
  readonly #notMade: ReadonlySet<string>;
  readonly #noMode: ReadonlySet<string>;
  readonly #noLinks: ReadonlySet<string>;
  readonly #links = new LinksOfBoth();
  readonly #present: ReturnType<typeof presentSource>;
  readonly #lossless: ReturnType<typeof losslessByPath>;
  readonly #saved: ReadonlyMap<string, Uint8Array>;
  readonly #read: ReadonlyMap<string, Uint8Array>;
  readonly #pace: Pacer;
  readonly #window = Buffer.allocUnsafeSlow(WINDOW);
  readonly #result: Compared = { wrong: [], unlike: [], untold: 0 };

  constructor(reader: BlobSource, found: ScanResult, written: Written) {
    const { content, chosen, lost, notSet } = written;
    const { omitted } = found.notes;
    content.placed?.lendTo(reader);
    this.#reader = reader;
    this.#written = written;
    this.#chosen = chosen === null ? null : new PathSelection(chosen);
    this.#lost = new PathSelection([...lost, ...omitted.map(({ path }) => path)]);
    const lacking = (aspect: string): Set<string> =>
      new Set(notSet.filter(({ aspects }) => aspects.includes(aspect)).map(({ path }) => latin1(path)));
    this.#notMade = lacking("type");
    this.#noMode = lacking("mode");
    this.#noLinks = lacking("links");
    this.#present = presentSource(found);
    this.#lossless = losslessByPath(content.manifest?.lossless ?? []);
    const byPath = (hashes: readonly { path: Uint8Array; sha256: Uint8Array }[]): Map<string, Uint8Array> =>
      new Map(hashes.map(({ path, sha256 }) => [latin1(path), sha256]));
    this.#saved = byPath(content.manifest?.fileHashes ?? []);
    this.#read = byPath(found.summarise().hashes);
    this.#pace = newPacer(written.signal);
  }

  async run(): Promise<Compared> {
    await this.#directory(this.#written.content.root, this.#present.root, new Uint8Array(0));
    return this.#result;
  }

  async #directory(tree: Uint8Array, there: Uint8Array, path: Uint8Array): Promise<void> {
    if (this.#lost.chosenAt(path) !== null) return;
    const wanted = await nodesOrNull(this.#reader, tree);
    if (wanted === null) return void this.#result.wrong.push(path);
    for (const { before, after } of pairsByName(wanted, this.#present.list(there))) {
      const own = joinPath(path, (before ?? after)!.name);
      if (before !== null && this.#chosen?.of(own) !== "no") {
        if (this.#lost.chosenAt(own) === null) await this.#entry(own, before, after);
      } else if (after !== null && !this.#mayBe(own)) this.#result.wrong.push(own);
    }
  }

  /** True if an entry may be here that the restore did not write. */
  #mayBe(path: Uint8Array): boolean {
    const { others } = this.#written;
    // A restore in place keeps entries at paths that it could not restore, and the parent directories of these entries.
    if (this.#lost.of(path) !== "no") return true;
    return (
      others === "anywhere" || (others !== "nowhere" && this.#chosen !== null && this.#chosen.of(path) !== "whole")
    );
  }

  async #entry(path: Uint8Array, saved: TreeNode, now: TreeNode | null): Promise<void> {
    // In place, another entry may be at this path, and stays.
    if (this.#notMade.has(latin1(path))) return;
    if (now === null || now.type !== saved.type) return void this.#result.wrong.push(path);
    // Directories that only lead to chosen entries have no mode of their own.
    const hasMode = this.#chosen?.of(path) !== "part" && saved.type !== "symlink" && !this.#noMode.has(latin1(path));
    if (hasMode && now.mode !== saved.mode) this.#result.unlike.push(otherModeEntry(path, saved, now));
    const node = exactNode(saved, this.#lossless.get(latin1(path)));
    if (node.type === "dir") return this.#directory(node.subtree!, now.subtree!, path);
    if (node.type === "file") return this.#file(path, node, now);
    if ((node.type === "dev" || node.type === "chardev") && node.device !== now.device) this.#result.wrong.push(path);
    if (node.type === "symlink" && compareBytes(node.linktarget!, now.linktarget!) !== 0) this.#result.wrong.push(path);
  }

  async #file(path: Uint8Array, saved: TreeNode, now: TreeNode): Promise<void> {
    if (now.size !== saved.size) return void this.#result.wrong.push(path);
    const otherwise = this.#links.add({ path, saved, now, isKnown: this.#noLinks.has(latin1(path)) });
    if (otherwise !== null) this.#result.unlike.push({ ...displayPath(path), ...otherwise });
    if (saved.size === 0) return;
    const [was, is] = [hashOf(saved, this.#saved.get(latin1(path))), hashOf(now, this.#read.get(latin1(path)))];
    const isSame =
      was === undefined || is === undefined ? await this.#holds(path, saved.content!) : compareBytes(was, is) === 0;
    if (isSame === null) this.#result.untold++;
    else if (!isSame) this.#result.wrong.push(path);
  }

  /**
   * Reads a file in the pieces of another program's cuts: the snapshot has their hashes, the index their lengths. Null
   * if the index lacks a piece. Follows no link.
   */
  async #holds(path: Uint8Array, pieces: Uint8Array): Promise<boolean | null> {
    const { index } = this.#reader;
    const entries = Array.from({ length: pieces.length / 32 }, (_, i) => index.lookup(pieces, i * 32, DATA_BLOB));
    if (entries.some((entry) => entry < 0)) return null;
    const root = fs.openSync(this.#written.folder, O_RDONLY | O_DIRECTORY);
    const fd = openBelow(syscalls(), root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, newArena(4096));
    fs.closeSync(root);
    // The file was removed or replaced since the scan.
    if (fd < 0) return false;
    try {
      for (const [i, entry] of entries.entries()) {
        const hash = new Sha256Stream();
        for (let left = index.table.plainLengthOf(entry); left > 0;) {
          await this.#pace();
          const count = fs.readSync(fd, this.#window, 0, Math.min(this.#window.length, left), null);
          if (count === 0) return false;
          hash.update(this.#window.subarray(0, count));
          left -= count;
        }
        if (compareBytes(hash.digest(), pieces.subarray(i * 32, i * 32 + 32)) !== 0) return false;
      }
      return fs.readSync(fd, this.#window, 0, 1, null) === 0;
    } finally {
      fs.closeSync(fd);
    }
  }
}

/** Tracks which compared files share an inode, in the snapshot and in the folder. */
class LinksOfBoth {
  /** For a saved inode: the inode of its first name now, and those of known copies. */
  readonly #now = new Map<string, Set<string>>();
  /** For a present inode: the saved inode of the first name that was compared. */
  readonly #saved = new Map<string, string>();

  /** Reports a wrong hard link of a file. Null if its links are right, or if the restore could not link it and said so. */
  add(file: { path: Uint8Array; saved: TreeNode; now: TreeNode; isKnown: boolean }): Omit<LeftOut, "path"> | null {
    const { path, saved, now, isKnown } = file;
    const [was, is] = [inodeOf(saved, path), inodeOf(now, path)];
    const expected = this.#now.get(was);
    const savedAs = this.#saved.get(is);
    if (expected === undefined) this.#now.set(was, new Set([is]));
    else if (isKnown) expected.add(is);
    if (savedAs === undefined) this.#saved.set(is, was);
    if (isKnown) return null;
    const detail =
      savedAs !== undefined && savedAs !== was
        ? "it is now a hard link to a file that it was not linked to when it was saved"
        : expected !== undefined && !expected.has(is)
          ? "it is now a separate file, but was saved as a hard link"
          : null;
    if (detail === null) return null;
    return { reason: "unsupported", detail: `${detail}: ${NOT_KEPT}`, aspects: ["links"] };
  }
}

/** The inode of a file, or its path if it has no other names. */
function inodeOf(node: TreeNode, path: Uint8Array): string {
  return linkedInode(node) ?? latin1(path);
}

/** SHA-256 of a file: the id of its only blob; for several blobs only a manifest records it. */
function hashOf({ content }: TreeNode, recorded: Uint8Array | undefined): Uint8Array | undefined {
  return content?.length === 32 ? content : recorded;
}

const NOT_KEPT = "the file system cannot store this, or another program changed it meanwhile";

function otherModeEntry(path: Uint8Array, saved: TreeNode, now: TreeNode): LeftOut {
  const [wanted, found] = [saved, now].map(({ mode }) => mode.toString(8).padStart(3, "0"));
  const detail = `its mode is now ${found}, but was saved as ${wanted}: ${NOT_KEPT}`;
  return { ...displayPath(path), reason: "unsupported", detail, aspects: ["mode"] };
}
