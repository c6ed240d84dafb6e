import { describe } from "node:test";
import { engineContract } from "../../src/engines/engine.contract.ts";

/**
 * What JuiceFS itself does is not known here: its stand-in shows that what goes around a clone is right, and nothing
 * of how it behaves when others write, or in time.
 */
const SOME =
  (process.env["CAIRN_TEST_LONG"] ?? process.env["CAIRN_TEST_JUICEFS"]) === undefined
    ? (["states", "held-trees", "cleanup"] as const)
    : undefined;

void describe("clones of JuiceFS", () => {
  engineContract({ engine: "juicefs-clone", on: "juicefs" }, SOME);
});
