import { describe } from "node:test";
import { engineContract } from "../../src/workspace/store/engine.contract.ts";

void describe("the store alone", () => {
  engineContract({ engine: "copy", on: "ext4" });
  // All of it goes through copy on these too, in the contracts of the engines that are at home there.
  for (const on of ["btrfs", "xfs", "juicefs"] as const) engineContract({ engine: "copy", on }, ["states"]);
});
