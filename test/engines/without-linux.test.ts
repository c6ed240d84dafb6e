import assert from "node:assert/strict";
import { describe, test } from "node:test";

// What macOS has of the system's calls too, and no more of them. The modules look when they are loaded.
process.env["CAIRN_NO_NATIVE"] = "linux";
const { engineContract } = await import("../../src/workspace/store/engine.contract.ts");
const { syscalls } = await import("../../src/fs/linux/syscalls.ts");

void describe("engines without the calls that only Linux has", () => {
  void test("they are not made, and clones have names of their own", () => {
    const { native, exactTimes, cloneAs } = syscalls();
    assert.deepEqual([native, exactTimes, cloneAs === null], [false, true, false]);
  });

  engineContract({ engine: "reflink-copy", on: "xfs" }, [
    "states",
    "moments",
    "holders",
    "held-trees",
    "full-disk",
    "readers",
    "cleanup",
    "kill-saves",
  ]);
  engineContract({ engine: "reflink-copy", on: "btrfs" }, ["states", "held-trees"]);
  engineContract({ engine: "copy", on: "ext4" }, ["states", "moments", "readers"]);
});
