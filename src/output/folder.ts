import { mkdirSync, renameSync } from "node:fs";
import { dirname } from "node:path";
import { damaged, errnoOf, toCairnError } from "../errors.ts";
import { directoryOf, joinPath, latin1 } from "../formats/bytes.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { fsyncDirectory, writePieces } from "../fs/durable.ts";
import { flushFileSystem } from "../fs/linux/flush.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { removeAll } from "../fs/remove-all.ts";
import { unfinishedBeside } from "../fs/work-directory.ts";
import type { Output, OutputEntry } from "./output.ts";

/** An entry without owner, time and attributes. */
type PlainNode = Pick<TreeNode, "type" | "mode">;

/**
 * Writes plain files and folders into a folder that only this process uses. The umask limits modes. Replaces no entry.
 * `write` throws `damaged` if a file is in the way.
 */
export class FolderOutput implements Output<PlainNode> {
  readonly lacks = "links, pipes and devices";
  readonly root: string;
  readonly #mode: number;
  readonly #made = new Set<string>();

  /** `mode`: of the folders above entries, if no entry of their own came before. */
  constructor(root: string, mode: number) {
    this.root = root;
    this.#mode = mode;
  }

  /** Takes a safe path. */
  next(path: Uint8Array, { type, mode }: PlainNode): OutputEntry | null {
    const place = joinPath(Buffer.from(this.root), path);
    const write = async (make: () => Promise<unknown> | void): Promise<void> => {
      try {
        await make();
      } catch (error) {
        if (!["EEXIST", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw error;
        const shown = printablePath(path);
        throw damaged(`the path ${JSON.stringify(shown)} belongs to two files`, { path: shown });
      }
    };
    if (type === "dir") return { needsContent: false, write: async () => write(() => this.#makeFolder(place, mode)) };
    if (type !== "file") return null;
    const file = async (content: AsyncIterable<Uint8Array>): Promise<void> => {
      this.#makeFolder(directoryOf(place), this.#mode);
      await writePieces(place, content, mode);
    };
    return { needsContent: true, write: async (content) => write(async () => file(content!)) };
  }

  async end(): Promise<void> {
    await flushFileSystem(this.root);
  }

  #makeFolder(folder: Uint8Array, mode: number): void {
    if (this.#made.has(latin1(folder))) return;
    mkdirSync(Buffer.from(folder), { recursive: true, mode });
    this.#made.add(latin1(folder));
  }
}

/** Fills a folder in the place of an absent or empty one: below a temporary name beside it; flushes it; ● the rename. */
export async function madeFolder<T>(
  target: string,
  {
    mode,
    modeBelow = mode,
    write,
    beforeCommit,
  }: { mode: number; modeBelow?: number; write: (output: FolderOutput) => Promise<T>; beforeCommit: () => void },
): Promise<T> {
  const output = new FolderOutput(unfinishedBeside(target), modeBelow);
  mkdirSync(output.root, { mode });
  try {
    const written = await write(output);
    await output.end();
    beforeCommit();
    renameSync(output.root, target);
    fsyncDirectory(dirname(target));
    return written;
  } catch (error) {
    removeAll(output.root);
    throw toCairnError(error, `write ${printablePath(target)}`);
  }
}
