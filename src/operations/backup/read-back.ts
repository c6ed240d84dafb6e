import { asVerifying, scan, type ScanResult } from "../../engines/scan/scan.ts";
import type { ScanNotes } from "../../engines/scan/task.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import type { IgnoreRecord } from "../../fs/ignore.ts";
import { displayPath } from "../../fs/safe-path.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { unlessOthersWrote } from "../../workspace/not-the-owner.ts";
import { userStateDirectory } from "../../workspace/registry.ts";
import type { Aspect, LeftOut, ProofSource, RestoreBackupOptions, RestoreProof } from "../contract.ts";
import { pointOf } from "./public-snapshot.ts";
import { requireReceiptPlace, writeReceipt } from "./receipt.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import type { SnapshotContent } from "./snapshot-content.ts";

/** What a folder is that was restored, and what it should be. */
export interface ReadBack {
  access: RepositoryAccess;
  listed: ListedSnapshot;
  content: SnapshotContent;
  options: Pick<RestoreBackupOptions, "jobs" | "proveFrom" | "receipt" | "signal" | "onProgress" | "onWarning">;
}

/** What decides whether a restore gets a receipt, as far as the caller chooses it. */
type Asked = Pick<RestoreBackupOptions, "receipt" | "prove" | "proveFrom"> & { keepPresent?: boolean };

/** Asks before anything is read whether the proof and the receipt that are wanted can be: this in a place outside of the target. Throws `usage`. */
export function checkProof(asked: Asked, target: Buffer): void {
  if (asked.prove === false && asked.proveFrom !== undefined)
    throw new CairnError("usage", `what is not read again is not read from ${asked.proveFrom}`, {
      hint: "leave out --no-prove or --prove-from",
    });
  if (asked.receipt === undefined) return;
  if (asked.prove === false) throw noReceipt("what was not read again gets no receipt", "leave out --no-prove");
  if (asked.keepPresent === true)
    throw noReceipt("a folder that keeps more gets no receipt", "leave out --keep-present");
  requireReceiptPlace(asked.receipt, target);
}

/** The same once it is known what is restored, before anything is written. */
export function checkReceiptOf(
  { receipt }: Asked,
  { listed, content, isWhole }: Pick<ReadBack, "listed" | "content"> & { isWhole: boolean },
): void {
  if (receipt === undefined) return;
  if (!isWhole) throw noReceipt("parts of a snapshot get no receipt", "name no folder, paths or patterns");
  if (content.manifest?.complete === true) return;
  const what = content.manifest === null ? "has no digest to compare with" : "lacks something of what it was made of";
  throw noReceipt(`snapshot ${listed.id.slice(0, 8)} gets no receipt: it ${what}`, "restore it as it is");
}

function noReceipt(why: string, hint: string): CairnError {
  return new CairnError("usage", why, { hint: `${hint}, or leave out --receipt` });
}

/** Says that a receipt that was wanted cannot be, since there is no proof. */
export function warnUnproven({ receipt, onWarning }: ReadBack["options"]): void {
  if (receipt !== undefined) onWarning?.("no receipt was written: what was restored could not be proven whole");
}

/** Whether what was written is to be read again. `isWhole`: all of a snapshot is written. */
export function isToBeProven({ prove, proveFrom }: Asked, isWhole: boolean): boolean {
  return prove ?? (proveFrom !== undefined || isWhole);
}

/** A folder as it is read again. */
export interface FoundAgain {
  found: ScanResult;
  /** In hex. */
  state: string;
  meta: string;
  from: ProofSource;
  /** What the digests lack, since it is there and could not be read. */
  notRead: LeftOut[];
  /** True where this user has not the right to read that, all of it: then neither disk nor memory are in doubt. */
  isRefused: boolean;
}

/** True of what a disk does not say. */
export function isRefusal(errno: string): boolean {
  return errno === "EACCES" || errno === "EPERM";
}

/** What the state digest does not cover. */
const BEYOND_STATE: ReadonlySet<Aspect> = new Set<Aspect>(["owner", "times", "xattrs", "links"]);

/** Whether something that is left out makes the state another one. */
export function isOfState({ aspects }: LeftOut): boolean {
  return aspects === undefined || aspects.some((aspect) => !BEYOND_STATE.has(aspect));
}

/** Reads a folder again; where that is from its disk all of it was flushed. */
export async function readBack(
  { access, options }: ReadBack,
  folder: Buffer,
  left: { rules: IgnoreRecord; skip: readonly string[]; crossMounts?: boolean },
): Promise<FoundAgain> {
  const found = await scan({
    root: folder,
    readAgain: options.proveFrom ?? "disk",
    cache: null,
    excludes: [],
    ...left,
    chunkerPolynomial: access.repository.chunkerPolynomial,
    jobs: options.jobs,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    onProgress: (progress) => options.onProgress?.(asVerifying(progress)),
  });
  const isFromMemory = options.proveFrom === "memory" || found.notes.keptInMemory > 0;
  const hex = (digest: Uint8Array): string => Buffer.from(digest).toString("hex");
  const { omitted } = found.notes;
  return {
    found,
    state: hex(found.state),
    meta: hex(found.meta),
    from: isFromMemory ? "memory" : "disk",
    notRead: notReadEntries(omitted),
    isRefused: omitted.length > 0 && omitted.every(({ reason }) => isRefusal(reason)),
  };
}

function notReadEntries(omitted: ScanNotes["omitted"]): LeftOut[] {
  return omitted.map(({ path, reason }): LeftOut => {
    return {
      ...displayPath(path),
      reason: "unreadable",
      detail: `it was written, and cannot be read again: ${reason}`,
    };
  });
}

/** A proof with its receipt; without one where the snapshot lacks something of what it was made of: that is not proven whole. */
export async function signed(
  { access, listed, content, options }: ReadBack,
  proof: Omit<RestoreProof, "receipt">,
  more: { from: ProofSource; leftOut: readonly LeftOut[]; target: string },
): Promise<RestoreProof> {
  if (content.manifest?.complete !== true) return { ...proof, receipt: null };
  try {
    const receipt = await writeReceipt(
      {
        repository_id: access.repository.id,
        snapshot_id: listed.id,
        save_point_id: pointOf(listed.snapshot),
        state_digest: proof.state_digest,
        metadata_digest: content.manifest.metadataDigest,
        metadata_equal: proof.metadata_equal,
        read_from: more.from,
        left_out: more.leftOut.length,
        target: more.target,
      },
      options.receipt,
    );
    return { ...proof, receipt };
  } catch (error) {
    // The folder is in place and proven all the same.
    const { message, hint } = toCairnError(unlessOthersWrote([userStateDirectory()], error));
    options.onWarning?.(`no receipt was written: ${message}${hint === undefined ? "" : `; ${hint}`}`);
    return { ...proof, receipt: null };
  }
}
