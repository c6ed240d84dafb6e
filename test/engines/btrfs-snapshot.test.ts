import { engineContract } from "../../src/engines/engine.contract.ts";

engineContract({ engine: "btrfs-snapshot", on: "btrfs" });
