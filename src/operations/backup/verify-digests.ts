import { StoreReader } from "../../engines/verify/store-reader.ts";
import { readPointManifest } from "../../engines/verify/point-manifest.ts";
import { TreeWalk } from "../../engines/verify/tree-walk.ts";
import { CairnError } from "../../errors.ts";
import type { CheckReport } from "../../repository/check.ts";
import type { NearPacks } from "../../repository/near-packs.ts";
import type { NearReader } from "../../repository/near-reader.ts";
import type { VerifyBackupOptions } from "../contract.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { snapshotContent } from "./snapshot-content.ts";

export interface DigestsToProve {
  access: RepositoryAccess;
  report: CheckReport;
  near: NearPacks;
  reader: NearReader;
  options: VerifyBackupOptions;
}

export interface DigestProblem {
  snapshot: string;
  problem: string;
}

/** A snapshot of a save point, and what is wrong with its digest; null: it is the one that was recorded. */
export type ProvenDigest = DigestProblem | { snapshot: string; problem: null };

/**
 * Computes the state digests of all snapshots of save points anew, from their trees and the hashes that are recorded of
 * large files, whose blobs are proven elsewhere. What cannot be read is damage that was named already, and is left out.
 */
export async function provenPointDigests(what: DigestsToProve): Promise<ProvenDigest[]> {
  const { access, report, near, reader, options } = what;
  const { index } = report;
  const store = new StoreReader(access.repository.keys, index, near.folder);
  const walk = new TreeWalk({ store, onPack: () => undefined, signal: options.signal });
  const proven: ProvenDigest[] = [];
  try {
    for (const { label, tree } of report.roots) {
      const id = label.replace(/^snapshot /, "");
      try {
        const snapshot = await access.repository.loadSnapshot(id);
        const content = await snapshotContent({ reader, index }, snapshot);
        const stateDigest = content.manifest?.stateDigest ?? null;
        if (stateDigest === null) continue;
        const { state } = await walk.point(content.root, readPointManifest(store, tree));
        if (state === null) continue;
        const found = Buffer.from(state).toString("hex");
        const problem = found === stateDigest ? null : `its state digest is ${found}, recorded is ${stateDigest}`;
        proven.push({ snapshot: id, problem });
      } catch (error) {
        if (!(error instanceof CairnError) || (error.code !== "damaged" && error.code !== "not_found")) throw error;
      }
    }
  } finally {
    store.close();
  }
  return proven;
}
