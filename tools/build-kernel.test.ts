import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { KERNELS, kernelModuleText } from "./build-kernel.ts";

test("each committed kernel equals what its source assembles to", async () => {
  for (const kernel of KERNELS)
    assert.equal(readFileSync(new URL(`../${kernel.module}`, import.meta.url), "utf8"), await kernelModuleText(kernel));
});
