import assert from "node:assert/strict";
import { test } from "node:test";
import { modeToSet } from "./root-metadata.ts";

test("modeToSet never gives the group more rights than the recorded access list did", () => {
  const cases: [string, { mode: number; aclGroup?: number }, { mode: number; aclGroup?: number }, number][] = [
    ["no lists", { mode: 0o2755 }, { mode: 0o700 }, 0o2755],
    ["none any more", { mode: 0o2775, aclGroup: 5 }, { mode: 0o700 }, 0o2755],
    ["none any more, and limited by its mask", { mode: 0o750, aclGroup: 7 }, { mode: 0o700 }, 0o750],
    ["the same", { mode: 0o775, aclGroup: 5 }, { mode: 0o700, aclGroup: 5 }, 0o775],
    ["one that gives the group more", { mode: 0o775, aclGroup: 5 }, { mode: 0o700, aclGroup: 7 }, 0o755],
    ["a new one, the rights being the same", { mode: 0o755 }, { mode: 0o775, aclGroup: 5 }, 0o775],
    ["a new one, and other rights", { mode: 0o700 }, { mode: 0o775, aclGroup: 5 }, 0o700],
  ];
  for (const [what, wanted, present, mode] of cases) assert.equal(modeToSet(wanted, present), mode, what);
});
