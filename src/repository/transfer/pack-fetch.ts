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
  /** Sealed bytes that are here by now, with small gaps between blobs. */
  onBytes?: ((bytes: number) => void) | undefined;
}

/**
 * Brings what a plan lists while others work with what has come, pack by pack in the order in which the plan's walk met
 * them. What the repository does not hold is passed over: whoever reads it meets that.
 */
export class PackFetch {
  /** By number of a pack: 1 where nothing more of it is to come. Other threads look at it by `Atomics`. */
  readonly here: Uint8Array;
  /** Rejects with the first failure. */
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
    // Told to whoever waits for a pack, too.
    this.done.catch(() => undefined);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Resolves when nothing more of these packs is to come; rejects when the fetching has failed before. */
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

/** With what the failure costs: files whose content was still to come, one a pack. */
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
  /** Number of the pack in the index. */
  readonly number: number;
}

/** Joins what is wanted of each pack; packs by their first use, those of trees first. A plan's entries come by pack. */
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
