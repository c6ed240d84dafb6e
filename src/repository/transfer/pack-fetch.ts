import { adviceOf, type CairnError, reworded, toCairnError } from "../../errors.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { addWanted, type NearPacks, type WantedRange } from "../read/near-packs.ts";
import type { TransferPlan } from "./transfer-plan.ts";

export interface PackFetchOptions {
  index: BlobIndex;
  near: NearPacks;
  plan: TransferPlan;
  signal: AbortSignal;
  /** Called with the sealed bytes fetched so far, including small gaps between blobs. */
  onBytes?: ((bytes: number) => void) | undefined;
}

/**
 * Fetches the blobs of a plan in the order in which the plan's walk met the packs, while other threads work with the
 * packs that have arrived. Skips missing packs: their readers get the error.
 */
export class PackFetch {
  /** By pack number: 1 if no more of the pack will come. Other threads read it with `Atomics`. */
  readonly here: Uint8Array;
  /** Rejects with the first error. */
  readonly done: Promise<void>;
  readonly #waiting = new Map<number, PromiseWithResolvers<void>>();
  #failure: CairnError | null = null;
  #isOver = false;

  constructor({ index, near, plan, signal, onBytes }: PackFetchOptions) {
    this.here = new Uint8Array(new SharedArrayBuffer(index.packCount)).fill(1);
    const ranges = inOrder(index, plan);
    const toCome = new Map<string, { number: number; bytes: number }>();
    for (const { number, pack, length } of ranges) {
      const known = toCome.get(pack);
      if (known === undefined) toCome.set(pack, { number, bytes: length });
      else known.bytes += length;
      this.here[number] = 0;
    }
    let bytes = 0;
    const onRange = ({ pack, length }: WantedRange): void => {
      onBytes?.((bytes += length));
      const left = toCome.get(pack);
      if (left !== undefined && (left.bytes -= length) <= 0) this.#arrived(left.number);
    };
    this.done = near.fetch(ranges, { lenient: true, signal, onRange }).then(
      () => void this.#end(null),
      (error: unknown) => {
        const lacking = [...toCome.values()]
          .filter((pack) => pack.bytes > 0)
          .map(({ number }) => plan.files.get(number));
        throw this.#end(told(toCairnError(error), lacking));
      },
    );
    // Waiters for a pack get the same error.
    this.done.catch(() => undefined);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Resolves when these packs are fetched; rejects if the fetching has failed before. */
  async until(packs: readonly number[]): Promise<void> {
    for (const pack of packs) {
      if (this.here[pack] === 1) continue;
      if (this.#failure !== null) throw this.#failure;
      let waiting = this.#waiting.get(pack);
      if (waiting === undefined) this.#waiting.set(pack, (waiting = Promise.withResolvers()));
      await waiting.promise;
    }
  }

  #arrived(pack: number): void {
    Atomics.store(this.here, pack, 1);
    this.#waiting.get(pack)?.resolve();
    this.#waiting.delete(pack);
  }

  #end<Failure extends CairnError | null>(failure: Failure): Failure {
    this.#isOver = true;
    this.#failure = failure;
    for (const { reject } of this.#waiting.values()) reject(failure);
    this.#waiting.clear();
    return failure;
  }
}

/** Adds to an error the files whose content was not fetched, one for each pack. */
function told(error: CairnError, files: readonly (string | undefined)[]): CairnError {
  const known = files.filter((file) => file !== undefined);
  if (error.code === "interrupted" || known.length === 0) return error;
  const first = JSON.stringify(displayPath(Buffer.from(known[0]!, "latin1")).path);
  const others = files.length > 1 ? ` and more content of ${files.length} packs` : "";
  const again = "nothing was put in place; run the command again: content that has arrived is not fetched again";
  const hint = adviceOf(error) ?? (error.retryable ? again : undefined);
  return reworded(error, { message: `${error.message}; content of ${first}${others} was not fetched`, hint });
}

interface NumberedRange extends WantedRange {
  /** The pack's number in the index. */
  readonly number: number;
}

/**
 * Joins the wanted ranges of each pack. Packs come in the order of their first use, packs of trees first. The plan's
 * entries are sorted by pack.
 */
function inOrder({ table }: BlobIndex, plan: TransferPlan): NumberedRange[] {
  const byPack = new Map<number, NumberedRange[]>();
  for (const entry of plan.entries) {
    const number = table.packOf[entry]!;
    let ranges = byPack.get(number);
    if (ranges === undefined) byPack.set(number, (ranges = []));
    const pack = ranges[0]?.pack ?? objectIdOf(table.packId(number));
    addWanted(ranges, { pack, number, offset: table.offsetOf[entry]!, length: table.lengthOf[entry]! });
  }
  const rank = new Map([...plan.files.keys()].map((pack, at) => [pack, at]));
  const rankOf = (pack: number): number => rank.get(pack) ?? -1;
  return [...byPack].toSorted(([a], [b]) => rankOf(a) - rankOf(b)).flatMap(([, ranges]) => ranges);
}
