/** How a save point holds content. Each engine reports what it really did, with every degradation. */
export type EngineType = "btrfs-snapshot" | "juicefs-clone" | "reflink-copy" | "copy";

export interface Degradation {
  what: string;
  reason: string;
}
