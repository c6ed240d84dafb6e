/** A state whose content is to be proven. */
export interface CheckedPoint {
  /** the caller's name for it; comes back in problems */
  label: string;
  /** id of the root's tree, 32 bytes */
  tree: Uint8Array;
  /** id of the tree that its snapshot names, in which its manifest lies; null when it has none */
  snapshotTree: Uint8Array | null;
  /** as its descriptor has them, 32 bytes each; null is not compared */
  stateDigest: Uint8Array | null;
  metadataDigest: Uint8Array | null;
}
