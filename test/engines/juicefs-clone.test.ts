import { describe } from "node:test";
import { engineContract } from "../../src/engines/engine.contract.ts";

void describe("clones of JuiceFS", () => {
  engineContract({ engine: "juicefs-clone", on: "juicefs" });
});
