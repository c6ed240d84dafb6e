import { describe } from "node:test";
import { engineContract } from "../../src/workspace/store/engine.contract.ts";
import { LONG } from "../fixtures/long.ts";

/** The steps are the same on both: on the second, what the file system itself has a part in. */
/** Of what is the same for every engine that holds trees, snapshots of btrfs are the example. */
const MOST = LONG
  ? undefined
  : (["states", "held-trees", "full-disk", "cleanup", "kill-saves", "kill-restores"] as const);
const SOME = LONG ? undefined : (["held-trees"] as const);

void describe("clones of every file", () => {
  engineContract({ engine: "reflink-copy", on: "xfs" }, MOST);
  engineContract({ engine: "reflink-copy", on: "btrfs" }, SOME);
});
