import assert from "node:assert/strict";
import os from "node:os";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { faultOfEntry, throwIfRanOut } from "./errno.ts";

const { errno } = os.constants;

function isRetryable(error: unknown): boolean {
  return error instanceof CairnError && error.code === "io" && error.retryable && error.hint !== undefined;
}

test("an errno is an entry's own when it says something of that entry", () => {
  assert.equal(faultOfEntry(-errno.EACCES), "EACCES");
  assert.equal(faultOfEntry(-errno.EIO), "EIO");
  throwIfRanOut(Object.assign(new Error("closed"), { code: "EACCES" }));
  throwIfRanOut(null);
});

test("an errno ends the work with a retryable error when the process or the system has run out of something", () => {
  for (const name of ["EMFILE", "ENFILE", "ENOMEM"] as const) {
    assert.throws(() => faultOfEntry(-errno[name]), isRetryable, name);
    assert.throws(() => throwIfRanOut(Object.assign(new Error("full"), { code: name })), isRetryable, name);
  }
});
