import type { Progress } from "../../contract/index.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { keepTelling } from "../../pacer.ts";
import type { BlobCounts } from "../../repository/packs/pack-uploader.ts";
import type { ForwardedPacks } from "../../repository/transfer/forwarded-packs.ts";
import type { TransferProgress } from "../../repository/transfer/transfer.ts";
import type { TransferPlan } from "../../repository/transfer/transfer-plan.ts";

/** Reports all uploads of a backup as one progress: blobs that have reached the repository. The snapshot comes last and counts as one. */
export class Uploading {
  readonly #report: ((progress: Progress) => void) | undefined;
  #arrived: BlobCounts = { blobs: 0, bytes: 0 };

  constructor(report: ((progress: Progress) => void) | undefined) {
    this.#report = report;
  }

  /** Waits until all forwarded packs are uploaded. */
  async finish(packs: ForwardedPacks): Promise<void> {
    const toldLast = keepTelling(this.#report, () => {
      const { done, total, current } = packs.arrived;
      return { ...progressOf(done, total), ...(current === null ? {} : { current }) };
    });
    try {
      await packs.finish();
    } finally {
      toldLast();
      this.#arrived = packs.arrived.done;
    }
  }

  /** Reports a transfer that follows. `current`: the file that comes after this number of its blobs. */
  told(current: (blobs: number) => { current?: string }): (progress: TransferProgress) => void {
    const before = this.#arrived;
    const and = ({ blobs, bytes }: BlobCounts): BlobCounts => ({
      blobs: before.blobs + blobs,
      bytes: before.bytes + bytes,
    });
    return ({ total, totalBytes, arrived }) => {
      this.#arrived = and(arrived);
      const all = and({ blobs: total, bytes: totalBytes });
      this.#report?.({ ...progressOf(this.#arrived, all), ...current(arrived.blobs) });
    };
  }

  /** Counts the saved snapshot as uploaded. */
  saved(): void {
    const { blobs, bytes } = this.#arrived;
    this.#report?.({ phase: "uploading", done: blobs + 1, total: blobs + 1, bytes, total_bytes: bytes });
  }
}

function progressOf(done: BlobCounts, total: BlobCounts): Progress {
  const counts = { done: done.blobs, total: total.blobs + 1 };
  return { phase: "uploading", ...counts, bytes: Math.min(done.bytes, total.bytes), total_bytes: total.bytes };
}

/** Returns the file whose data a transfer sends now, for people: data comes first, pack by pack. */
export function fileUnderWay(
  { entries, dataBlobs, files }: TransferPlan,
  packOf: Uint32Array,
  done: number,
): { current?: string } {
  const entry = dataBlobs === 0 ? undefined : entries[Math.min(done, dataBlobs - 1)];
  const file = entry === undefined ? undefined : files.get(packOf[entry]!);
  return file === undefined ? {} : { current: `/${displayPath(Buffer.from(file, "latin1")).path}` };
}
