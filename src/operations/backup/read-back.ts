import { scan } from "../../engines/scan/scan.ts";
import { toCairnError } from "../../errors.ts";
import type { IgnoreRecord } from "../../fs/ignore.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { LeftOut, RestoreBackupOptions, RestoreProof } from "../contract.ts";
import { pointOf } from "./public-snapshot.ts";
import { writeReceipt } from "./receipt.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import type { SnapshotContent } from "./snapshot-content.ts";

/** What a folder is that was restored, and what it should be. */
export interface ReadBack {
  access: RepositoryAccess;
  listed: ListedSnapshot;
  content: SnapshotContent;
  options: Pick<RestoreBackupOptions, "jobs" | "receipt" | "signal" | "onProgress" | "onWarning">;
}

/** The state and metadata digests, in hex, of a folder as its disk gives it back; all of it was flushed. */
export async function readBack(
  { access, options }: ReadBack,
  folder: Buffer,
  left: { rules: IgnoreRecord; skip: readonly string[] },
): Promise<{ state: string; meta: string }> {
  const found = await scan({
    root: folder,
    fromDisk: true,
    cache: null,
    excludes: [],
    ...left,
    chunkerPolynomial: access.repository.chunkerPolynomial,
    jobs: options.jobs,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    onProgress: ({ done, bytes }) =>
      options.onProgress?.({ phase: "verifying", done, ...(bytes === undefined ? {} : { bytes }) }),
  });
  const hex = (digest: Uint8Array): string => Buffer.from(digest).toString("hex");
  return { state: hex(found.state), meta: hex(found.meta) };
}

/** A proof with its receipt; without one where the snapshot lacks something of what it was made of: that is not proven whole. */
export async function signed(
  { access, listed, content, options }: ReadBack,
  proof: Omit<RestoreProof, "receipt">,
  more: { leftOut: readonly LeftOut[]; target: string },
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
        left_out: more.leftOut.length,
        target: more.target,
      },
      options.receipt,
    );
    return { ...proof, receipt };
  } catch (error) {
    // The folder is in place and proven all the same.
    options.onWarning?.(`no receipt was written: ${toCairnError(error).message}`);
    return { ...proof, receipt: null };
  }
}
