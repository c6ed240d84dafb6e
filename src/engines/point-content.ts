/** Where a point's content is, as its descriptor says it; each engine knows its own keys. */
export interface PointContent {
  /** id of the workspace's root tree, hex; empty until an engine that does not read has sealed the point */
  tree: string;
  [key: string]: unknown;
}
