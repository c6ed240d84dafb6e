import { join } from "node:path";
import { moveByThreads } from "../../engines/transfer/move-by-threads.ts";
import { CairnError } from "../../errors.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";
import { EntrySet } from "../../repository/entry-set.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import { lostEntries } from "../../repository/near-packs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { packSizes } from "../../repository/storage/storage.ts";
import { runTransfer } from "../../repository/transfer.ts";
import { planTransfer, type TransferPlan } from "../../repository/transfer-plan.ts";
import { withCopies } from "../../repository/with-copies.ts";
import type { CopyBackupsOptions, TransferredSize } from "../contract.ts";
import type { Look } from "./look.ts";
import { addedBy } from "./made-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";

interface BringingParts extends Pick<Look, "reader" | "near" | "copies"> {
  from: RepositoryAccess;
  to: RepositoryAccess;
  source: BlobIndex;
  target: BlobIndex;
  lock: RepositoryLock;
  options: CopyBackupsOptions;
}

interface Brought {
  added: TransferredSize;
  /** By id of a snapshot that lacks something, what. */
  lacking: ReadonlyMap<string, CairnError>;
}

/** How one plan or transfer is made where not all can be had. */
interface Careful {
  isLost: (entry: number) => boolean;
  seen: EntrySet;
}

const NOTHING: TransferredSize = { data_blobs: 0, tree_blobs: 0, bytes: 0, stored_bytes: 0, packs: 0 };

/** Brings what snapshots need from one repository into another; in a dry run it only says what that is. */
export class Bringing {
  readonly #parts: BringingParts;

  constructor(parts: BringingParts) {
    this.#parts = parts;
  }

  /** All at once; where something of that is lost or damaged, what those need that lack nothing. */
  async all(snapshots: readonly ListedSnapshot[]): Promise<Brought> {
    try {
      // What is lost is met when it is read, and a dry run reads no content.
      const { options, from, source } = this.#parts;
      const careful = options.dryRun === true ? await this.#careful(from, source) : undefined;
      return { added: await this.#bring(snapshots, careful), lacking: new Map() };
    } catch (error) {
      if (!isDamaged(error)) throw error;
      return this.#eachByItself(snapshots);
    }
  }

  /** First what is known without reading content; where that was not all, each snapshot is brought by itself. */
  async #eachByItself(snapshots: readonly ListedSnapshot[]): Promise<Brought> {
    const { from, source } = this.#parts;
    const lacking = new Map<string, CairnError>();
    const told = async (listed: ListedSnapshot, work: () => Promise<void>): Promise<void> => {
      try {
        await work();
      } catch (error) {
        if (!isDamaged(error)) throw error;
        lacking.set(listed.id, error);
      }
    };
    const whole = (): ListedSnapshot[] => snapshots.filter(({ id }) => !lacking.has(id));
    let careful = await this.#careful(from, source);
    const fresh = careful;
    for (const listed of snapshots)
      await told(listed, async () => {
        const next = { ...careful };
        await this.#planned([listed], next, async () => undefined);
        careful = next;
      });
    let added = NOTHING;
    try {
      added = await this.#bring(whole(), { ...fresh });
    } catch (error) {
      if (!isDamaged(error)) throw error;
      careful = fresh;
      for (const listed of whole())
        await told(listed, async () => {
          const next = { ...careful };
          added = sum(added, await this.#bring([listed], next));
          careful = next;
        });
    }
    return { added, lacking };
  }

  async #careful({ storage }: RepositoryAccess, source: BlobIndex): Promise<Careful> {
    return { isLost: lostEntries(source, await packSizes(storage)), seen: new EntrySet(source.count) };
  }

  /** Works by a plan; once more where other packs have what either was kept from. What was seen is then `careful`'s. */
  async #planned<T>(
    snapshots: readonly ListedSnapshot[],
    careful: Careful | undefined,
    work: (plan: TransferPlan) => Promise<T>,
  ): Promise<T> {
    const before = careful?.seen;
    const plan = async (): Promise<TransferPlan> => {
      if (careful !== undefined) careful.seen = before!.copy();
      return this.#plan(snapshots, careful);
    };
    return withCopies(this.#parts.copies, plan, work);
  }

  async #plan(snapshots: readonly ListedSnapshot[], careful?: Careful): Promise<TransferPlan> {
    const { source, target, reader, options } = this.#parts;
    return planTransfer(source, target, {
      roots: snapshots.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex")),
      readTree: reader.readTree,
      ...careful,
      signal: options.signal,
      onTree: (done) => options.onProgress?.({ phase: "planning", done }),
    });
  }

  async #bring(snapshots: readonly ListedSnapshot[], careful?: Careful): Promise<TransferredSize> {
    return this.#planned(snapshots, careful, async (plan) => this.#move(plan));
  }

  async #move(plan: TransferPlan): Promise<TransferredSize> {
    const { from, to, source, target, near, lock, options } = this.#parts;
    if (options.dryRun === true) return addedBy(plan, null);
    const sides = [
      { repository: from.repository, index: source },
      { repository: to.repository, index: target },
    ] as const;
    const transfer = await runTransfer(...sides, plan, {
      directory: join(to.workDirectory(), "packs"),
      near,
      move: moveByThreads,
      uploads: { stillHeld: async () => lock.recheck() },
      signal: options.signal,
      onProgress: ({ done, total, bytes, totalBytes }) =>
        options.onProgress?.({ phase: "uploading", done, total, bytes, total_bytes: totalBytes }),
    });
    return addedBy(plan, transfer);
  }
}

function isDamaged(error: unknown): error is CairnError {
  return error instanceof CairnError && error.code === "damaged";
}

function sum(a: TransferredSize, b: TransferredSize): TransferredSize {
  return {
    data_blobs: a.data_blobs + b.data_blobs,
    tree_blobs: a.tree_blobs + b.tree_blobs,
    bytes: a.bytes + b.bytes,
    stored_bytes: a.stored_bytes + b.stored_bytes,
    packs: a.packs + b.packs,
  };
}
