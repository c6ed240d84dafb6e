import { describe } from "node:test";
import { engineContract } from "../../src/workspace/store/engine.contract.ts";

void describe("snapshots of btrfs", () => {
  engineContract({ engine: "btrfs-snapshot", on: "btrfs" });
});
