import { engineContract } from "../../src/engines/engine.contract.ts";

engineContract({ engine: "reflink-copy", on: "xfs" });
// The steps are the same on both, so they are killed on one; CAIRN_TEST_LONG does all of it.
engineContract(
  { engine: "reflink-copy", on: "btrfs" },
  process.env["CAIRN_TEST_LONG"] === undefined
    ? ["states", "moments", "holders", "held-trees", "full-disk", "cleanup"]
    : undefined,
);
