import { append } from "../../append.ts";
import { collectMemory, dropPages } from "../../native.ts";
import { allocateTable, type TableBuffers } from "../cache/scan-table.ts";
import type { ScanTask } from "./task.ts";

/**
 * Empty tables of earlier scans for reuse. The garbage collector frees shared memory late, and even freed buffers keep
 * their edge pages: hundreds of scans would keep hundreds of megabytes.
 */
const empty: TableBuffers[] = [];
const MOST_EMPTY = 4;

/**
 * The shared memory of one operation's scans, released after the operation. The garbage collector does not count shared
 * memory and frees none of it in time: repeated saves held the tables of dozens of saves, a gigabyte for 20 000 files.
 */
export class ScanMemory {
  readonly #held = new Set<SharedArrayBuffer>();
  readonly #rings: ScanTask["rings"] = [];
  readonly #uses: Promise<unknown>[] = [];
  readonly #done = new Set<TableBuffers>();

  /** Returns an empty table with room for this many entries. */
  table(entries: number): TableBuffers {
    const at = empty.findIndex(({ capacity }) => capacity.records === entries);
    return at < 0 ? allocateTable(entries) : empty.splice(at, 1)[0]!;
  }

  /** To be called after a scan that succeeded: no thread writes to the table any more. */
  done(table: TableBuffers): void {
    this.#done.add(table);
  }

  /** To be called after a scan that met a full table: the next scan takes a larger one. */
  abandon(table: TableBuffers): void {
    for (const buffer of Object.values(table)) if (buffer instanceof SharedArrayBuffer) dropPages(buffer);
  }

  /** Registers all memory that a scan's threads use. */
  hold({ table, old, written, rings }: Pick<ScanTask, "table" | "old" | "written" | "rings">): void {
    for (const tables of [table, old, written])
      for (const buffer of Object.values(tables ?? {})) if (buffer instanceof SharedArrayBuffer) this.#held.add(buffer);
    append(this.#rings, rings);
  }

  /** Releases the pages of all rings, once no thread of this operation reads large files. */
  giveBackRings(): void {
    for (const { buffer } of this.#rings.splice(0)) dropPages(buffer);
  }

  /** Waits for this use of the memory before releasing it. The promise must not reject. */
  until(use: Promise<unknown>): void {
    this.#uses.push(use);
  }

  /** Releases the pages: all the memory reads as zeros from now on. */
  async giveBack(): Promise<void> {
    this.giveBackRings();
    const [held, done] = [[...this.#held], [...this.#done]];
    this.#held.clear();
    this.#done.clear();
    await Promise.all(this.#uses.splice(0));
    const kept = new Set(held.filter((buffer) => !dropPages(buffer)));
    append(
      empty,
      [...done].filter((table) => !Object.values(table).some((each) => kept.has(each))),
    );
    empty.splice(0, empty.length - MOST_EMPTY);
  }

  /** Frees the memory and runs the garbage collector, for work that a daemon repeats hundreds of times. */
  async collect(): Promise<void> {
    await this.giveBack();
    collectMemory();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.giveBack();
  }
}
