import { describe } from "node:test";
import { firstOf } from "../fixtures/long.ts";
import { engineContract } from "../../src/workspace/store/engine.contract.ts";

/** Kills of the store are those of test/crash/*-replay.flow.test.ts. */
const GROUPS = ["states", "corpus", "moments", "holders", "held-trees", "full-disk", "readers", "cleanup"] as const;

void describe("the store alone", () => {
  engineContract({ engine: "copy", on: "ext4" }, GROUPS);
  // All of it goes through copy on these too, in the contracts of the engines that are at home there.
  for (const on of firstOf(["btrfs", "xfs", "juicefs"] as const, 0)) engineContract({ engine: "copy", on }, ["states"]);
});
