import { wholePackDamage } from "../../engines/verify/problem-list.ts";
import { PackProver } from "../../engines/verify/prove-packs.ts";
import type { PackReport } from "../../engines/verify/verify-task.ts";
import { CairnError, throwIfAborted } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import type { CheckedPacks, CheckProblem } from "../../repository/check.ts";
import type { NearPacks } from "../../repository/near-packs.ts";
import type { StoredFile } from "../../repository/storage/storage.ts";
import type { VerifyBackupOptions } from "../contract.ts";
import type { RepositoryAccess } from "./repository-access.ts";

export interface PacksToVerify {
  access: RepositoryAccess;
  report: Pick<CheckedPacks, "index" | "lost">;
  near: NearPacks;
  packs: readonly StoredFile[];
  options: VerifyBackupOptions;
}

export interface VerifiedPacks {
  problems: CheckProblem[];
  packs: number;
  blobs: number;
  bytes: number;
}

/** Bytes of packs that are brought at once from a storage that is not local, while those before are proven. */
const BATCH_BYTES = 64 * 1024 * 1024;

/** Reads packs whole and proves them by all threads; from a storage that is not local a few at a time. */
export async function verifyPacks(what: PacksToVerify): Promise<VerifiedPacks> {
  const done: VerifiedPacks = { problems: [], packs: 0, blobs: 0, bytes: 0 };
  if (what.packs.length === 0) return done;
  return new PacksVerification(what).run();
}

class PacksVerification {
  readonly #what: PacksToVerify;
  readonly #prover: PackProver;
  readonly #numbers = new Map<string, number>();
  readonly #done: VerifiedPacks = { problems: [], packs: 0, blobs: 0, bytes: 0 };
  readonly #totalBytes: number;

  constructor(what: PacksToVerify) {
    this.#what = what;
    const { access, report, near, packs, options } = what;
    const { index } = report;
    this.#prover = new PackProver({ keys: access.repository.keys, index, packs: near.folder, signal: options.signal });
    const { table } = index;
    for (let pack = 0; pack < table.packCount; pack++) this.#numbers.set(objectIdOf(table.packId(pack)), pack);
    this.#totalBytes = packs.reduce((sum, { size }) => sum + size, 0);
  }

  async run(): Promise<VerifiedPacks> {
    const batches = this.#batches();
    let coming = this.#bring(batches[0]!);
    for (let at = 0; at < batches.length; at++) {
      const here = await coming;
      const next = batches[at + 1];
      coming = next === undefined ? Promise.resolve([]) : this.#bring(next);
      coming.catch(() => undefined);
      await this.#prove(here);
      for (const { name } of here) this.#what.near.drop(name);
    }
    this.#addUnproven();
    return this.#done;
  }

  #batches(): StoredFile[][] {
    const { packs, near } = this.#what;
    if (near.isLocal) return [[...packs]];
    const batches: StoredFile[][] = [];
    let bytes = BATCH_BYTES;
    for (const pack of packs) {
      if (bytes >= BATCH_BYTES) {
        batches.push([]);
        bytes = 0;
      }
      batches.at(-1)!.push(pack);
      bytes += pack.size;
    }
    return batches;
  }

  /** Makes packs local; one that cannot be had is a problem and is not among those that are returned. */
  async #bring(packs: readonly StoredFile[]): Promise<StoredFile[]> {
    const { near, options } = this.#what;
    const range = ({ name, size }: StoredFile): { pack: string; offset: number; length: number } => ({
      pack: name,
      offset: 0,
      length: size,
    });
    try {
      await near.fetch(packs.map(range), { signal: options.signal });
      return [...packs];
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
    }
    const here: StoredFile[] = [];
    for (const pack of packs) {
      throwIfAborted(options.signal);
      try {
        await near.fetch([range(pack)], { signal: options.signal });
        here.push(pack);
      } catch (error) {
        if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
        this.#packReports.set(this.#numbers.get(pack.name)!, { kind: "unreadable", message: error.message });
        this.#add("pack_damaged", pack.name, error.message);
      }
    }
    return here;
  }

  async #prove(packs: readonly StoredFile[]): Promise<void> {
    const done = this.#done;
    const { options } = this.#what;
    const numbers = packs.map(({ name }) => this.#numbers.get(name)!);
    const proven = await this.#prover.prove(numbers, ({ packs: count, bytes }) =>
      options.onProgress?.({
        phase: "verifying",
        done: done.packs + count,
        total: this.#what.packs.length,
        bytes: done.bytes + bytes,
        total_bytes: this.#totalBytes,
      }),
    );
    done.packs += proven.packs;
    done.blobs += proven.blobs;
    const unread = new Set(proven.reports.filter(({ kind }) => kind !== null).map(({ pack }) => pack));
    for (const [i, { size }] of packs.entries()) if (!unread.has(numbers[i]!)) done.bytes += size;
    for (const report of proven.reports) this.#report(report);
  }

  #report({ pack, kind, message, blobs }: PackReport): void {
    const { index, lost } = this.#what.report;
    const name = objectIdOf(index.table.packId(pack));
    this.#packReports.set(pack, { kind, message });
    if (kind !== null) this.#add(kind === "missing" ? "pack_missing" : "pack_damaged", name, message);
    for (const { entry, message: why } of blobs) {
      this.#reported.add(entry);
      // Its pack is known to end before it.
      if (lost.has(entry)) continue;
      const { offset } = index.place(entry);
      this.#add("blob_damaged", objectIdOf(index.idOf(entry)), `in pack ${name} at ${offset}: ${why}`);
    }
  }

  readonly #reported = new Set<number>();
  /** By the packs' numbers. */
  readonly #packReports = new Map<number, Pick<PackReport, "kind" | "message">>();

  /** What the index places in a pack that was to be read, and was not found there. */
  #addUnproven(): void {
    const { index, lost } = this.#what.report;
    const { table } = index;
    const read = new Uint8Array(table.packCount);
    for (const { name } of this.#what.packs) read[this.#numbers.get(name)!] = 1;
    for (let entry = 0; entry < table.count; entry++) {
      if (read[table.packOf[entry]!] !== 1 || this.#prover.proven[entry] === 1 || lost.has(entry)) continue;
      if (this.#reported.has(entry)) continue;
      const { pack, offset } = index.place(entry);
      const name = objectIdOf(pack);
      const why = wholePackDamage(this.#packReports.get(table.packOf[entry]!), name);
      const elsewhere = `it is not in pack ${name} at ${offset}, where the index has it`;
      this.#add("blob_damaged", objectIdOf(index.idOf(entry)), why ?? elsewhere);
    }
  }

  #add(kind: CheckProblem["kind"], object: string, detail: string): void {
    this.#done.problems.push({ kind, object, detail, severity: "damage" });
  }
}
