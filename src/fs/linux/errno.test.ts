import assert from "node:assert/strict";
import os from "node:os";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { faultOfEntry, throwIfRanOut } from "./errno.ts";

const { errno } = os.constants;

function isRetryable(error: unknown): boolean {
  return error instanceof CairnError && error.code === "io" && error.retryable && error.hint !== undefined;
}

test("faultOfEntry returns the errno's name for an error of one entry, such as EACCES", () => {
  assert.equal(faultOfEntry(-errno.EACCES), "EACCES");
  assert.equal(faultOfEntry(-errno.EIO), "EIO");
  throwIfRanOut(Object.assign(new Error("closed"), { code: "EACCES" }));
  throwIfRanOut(null);
});

test("faultOfEntry throws a retryable error if descriptors or memory are exhausted", () => {
  for (const name of ["EMFILE", "ENFILE", "ENOMEM"] as const) {
    assert.throws(() => faultOfEntry(-errno[name]), isRetryable, name);
    assert.throws(() => throwIfRanOut(Object.assign(new Error("full"), { code: name })), isRetryable, name);
  }
});
