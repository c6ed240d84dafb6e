import { CairnError } from "../../errors.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { WrittenContent } from "./engine.ts";
import { holesByPath, type LosslessByPath, losslessByPath } from "../../archive/write/exact-nodes.ts";
import type { HoleList } from "../../archive/write/data-runs.ts";

/** Facts of a point that the nodes of trees cannot hold. */
interface BeyondNodes {
  holes: ReadonlyMap<string, HoleList>;
  lossless: LosslessByPath;
  damaged: WrittenContent["damaged"];
  lacks: WrittenContent["lacks"];
}

/** Reads the facts that nodes cannot hold from a point's manifest. If it is unreadable, files are written without holes. */
export async function beyondNodes(read: () => Promise<Manifest | null>): Promise<BeyondNodes> {
  let manifest: Manifest | null = null;
  const damaged: WrittenContent["damaged"] = [];
  try {
    manifest = await read();
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
    damaged.push({
      path: new Uint8Array(0),
      detail: `the point's manifest cannot be read, so sparse files are written without holes: ${error.message}`,
    });
  }
  return {
    damaged,
    lacks: manifest,
    holes: holesByPath(manifest),
    lossless: losslessByPath(manifest?.lossless ?? []),
  };
}
