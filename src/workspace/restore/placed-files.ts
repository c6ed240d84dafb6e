import type { WrittenFile } from "../../archive/scan/written-files.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import { signedWide, STAT, wide } from "../../fs/linux/syscalls.ts";
import { inOrder, PackedList } from "../points/packed-list.ts";
import type { MadeContents } from "../rules/made-contents.ts";
import type { Plan, PlannedEntry } from "../rules/plan.ts";
import type { Step } from "../points/steps.ts";

/** Bytes of a chunk's id. */
const ID = 32;

/** Collects the files that a restore puts in place, so that the next scan of the folder does not read them. */
export class PlacedFiles {
  readonly files = new PackedList<WrittenFile>();
  readonly #planned: ReturnType<typeof inOrder<PlannedEntry>>;
  readonly #made: MadeContents;
  readonly #hashes: ReadonlyMap<string, Uint8Array>;

  constructor(plan: Plan, manifest: Manifest | null, made: MadeContents) {
    this.#made = made;
    this.#planned = inOrder(plan);
    this.#hashes = new Map(manifest?.fileHashes.map(({ path, sha256 }) => [latin1(path), sha256]));
  }

  /** Adds a file right after it got its place, by the words of its stat result, if it is the staged one. */
  add({ path, inode }: Extract<Step, { op: "put" }>, stat: Uint32Array): void {
    const node = this.#planned((entry) => Buffer.compare(entry.path, path) === 0)?.after;
    // A process may have the file open for writing through another name.
    if (node?.content === undefined || node.inode !== 0n || stat[STAT.NLINK] !== 1) return;
    // The store does not have a made content: the next save reads it.
    if (this.#made.has(node)) return;
    const isStaged =
      BigInt(stat[STAT.INO + 1]!) * 4294967296n + BigInt(stat[STAT.INO]!) === BigInt(inode) &&
      wide(stat, STAT.SIZE) === node.size &&
      signedWide(stat, STAT.MTIME) === node.mtimeSec &&
      stat[STAT.MTIME_NS] === node.mtimeNs;
    const isWhole = node.content.length === ID;
    const sha256 = isWhole ? node.content : this.#hashes.get(latin1(path));
    if (isStaged && sha256 !== undefined)
      this.files.push({ stat: stat.slice(), sha256, chunks: isWhole ? null : node.content });
  }
}
