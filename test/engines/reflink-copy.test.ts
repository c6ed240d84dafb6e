import { describe } from "node:test";
import { engineContract } from "../../src/engines/engine.contract.ts";

/** The steps are the same on both, so they are killed on one. */
const MOST =
  process.env["CAIRN_TEST_LONG"] === undefined
    ? (["states", "moments", "holders", "held-trees", "full-disk", "cleanup"] as const)
    : undefined;

void describe("clones of every file", () => {
  engineContract({ engine: "reflink-copy", on: "xfs" });
  engineContract({ engine: "reflink-copy", on: "btrfs" }, MOST);
});
