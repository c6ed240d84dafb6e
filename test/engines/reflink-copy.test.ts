import { describe } from "node:test";
import { engineContract } from "../../src/workspace/store/engine.contract.ts";

/** The steps are the same on both: on the second, what the file system itself has a part in. */
const MOST =
  process.env["CAIRN_TEST_LONG"] === undefined
    ? (["states", "held-trees", "full-disk", "cleanup"] as const)
    : undefined;

void describe("clones of every file", () => {
  engineContract({ engine: "reflink-copy", on: "xfs" });
  engineContract({ engine: "reflink-copy", on: "btrfs" }, MOST);
});
