import type { WrittenFile } from "../../archive/scan/written-files.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import { signedWide, STAT, wide } from "../../fs/linux/syscalls.ts";
import type { PlannedEntry } from "./plan.ts";
import type { Step } from "./steps.ts";

/** Bytes of an id. */
const ID = 32;

/** Collects the files that a restore puts in place, so that the next look at the folder need not read them. */
export class PlacedFiles {
  readonly files: WrittenFile[] = [];
  readonly #planned = new Map<string, PlannedEntry["after"]>();
  readonly #hashes: ReadonlyMap<string, Uint8Array>;

  constructor(plan: readonly PlannedEntry[], manifest: Manifest | null) {
    for (const { path, after } of plan) if (after?.type === "file") this.#planned.set(latin1(path), after);
    this.#hashes = new Map(manifest?.fileHashes.map(({ path, sha256 }) => [latin1(path), sha256]));
  }

  /** Takes a file as it is right after it got its place, by the words of its stat result, where it is what was staged. */
  add({ path, inode }: Extract<Step, { op: "put" }>, stat: Uint32Array): void {
    const node = this.#planned.get(latin1(path));
    // Who has another name of it may have it open for writing.
    if (node?.content === undefined || node.inode !== 0n || stat[STAT.NLINK] !== 1) return;
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
