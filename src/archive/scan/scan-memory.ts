import { dropPages } from "../../native.ts";
import type { ScanTask } from "./task.ts";

/**
 * The shared memory of one operation's scans, given back once the operation is over. The collector counts shared memory as
 * nothing and comes for none of it, in this thread and in those that saw it too: who saved again and again held the tables
 * of dozens of saves, a gigabyte for 20 000 files.
 */
export class ScanMemory {
  readonly #held = new Set<SharedArrayBuffer>();
  readonly #uses: Promise<unknown>[] = [];

  /** All that a scan's threads read and write. */
  hold({ table, old, written, rings }: Pick<ScanTask, "table" | "old" | "written" | "rings">): void {
    for (const tables of [table, old, written])
      for (const buffer of Object.values(tables ?? {})) if (buffer instanceof SharedArrayBuffer) this.#held.add(buffer);
    for (const { buffer } of rings) this.#held.add(buffer);
  }

  /** Some of it is in use until then, which never fails. */
  until(use: Promise<unknown>): void {
    this.#uses.push(use);
  }

  /** Nobody looks at any of it again: it is zeros from now on. */
  async giveBack(): Promise<void> {
    const held = [...this.#held];
    this.#held.clear();
    await Promise.all(this.#uses.splice(0));
    for (const buffer of held) dropPages(buffer);
  }
}
