import { pointManifestOf } from "../../engines/verify/point-manifest.ts";
import { StoreReader } from "../../engines/verify/store-reader.ts";
import { TreeWalk } from "../../engines/verify/tree-walk.ts";
import { BlobIndex } from "../../repository/blob-index.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { planTransfer } from "../../repository/transfer-plan.ts";
import type { CallOptions } from "../contract.ts";
import type { Look } from "./look.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import type { SnapshotContent } from "./snapshot-content.ts";

/**
 * Content with a manifest whose digests are those of its tree. Other programs make snapshots of ours (`restic rewrite`,
 * `restic repair snapshots`), and say of which: the manifest comes along, and the tree may be another. Then the digests
 * are computed, and it counts as incomplete: it is no save point's, and no receipt is given for it.
 */
export async function withOwnDigests<T extends Pick<SnapshotContent, "root" | "only" | "manifest">>(
  content: T,
  of: Look & { access: RepositoryAccess; listed: ListedSnapshot; options: CallOptions },
): Promise<T> {
  const { access, listed, index, near, reader, options } = of;
  const { original } = listed.snapshot;
  if (original === undefined || content.manifest === null) return content;
  const { signal } = options;
  // So that all of its trees are near.
  await planTransfer(index, new BlobIndex(), { roots: [content.root], readTree: reader.readTree, signal });
  const store = new StoreReader(access.repository.keys, index, near.folder);
  try {
    const walk = new TreeWalk({ store, onPack: () => undefined, signal });
    const { state, meta } = await walk.point(content.root, pointManifestOf(content.manifest), content.only);
    const [stateDigest, metadataDigest] = [hex(state), hex(meta)];
    if (stateDigest === content.manifest.stateDigest) return content;
    options.onWarning?.(`another program made the snapshot of ${original.slice(0, 8)}: it is no save point's any more`);
    return { ...content, manifest: { ...content.manifest, stateDigest, metadataDigest, complete: false } };
  } finally {
    store.close();
  }
}

function hex(digest: Uint8Array | null): string | null {
  return digest === null ? null : Buffer.from(digest).toString("hex");
}
