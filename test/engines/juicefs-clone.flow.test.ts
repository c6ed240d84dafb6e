import { describe } from "node:test";
import { engineContract } from "../../src/workspace/store/engine.contract.ts";
import { bestJuicefs } from "../fixtures/juicefs.ts";
import { LONG } from "../fixtures/long.ts";

/**
 * All of it on the real one. Its stand-in shows that what goes around a clone is right, and nothing of how JuiceFS
 * behaves when others write, or in time.
 */
const SOME = !LONG && bestJuicefs() === "stand-in" ? (["states"] as const) : undefined;

void describe("clones of JuiceFS", () => {
  engineContract({ engine: "juicefs-clone", on: "juicefs" }, SOME);
});
