import assert from "node:assert/strict";
import { test } from "node:test";
import { timesIn } from "./times.ts";

test("times in a sentence are found, and those in a file's name are not", () => {
  const at = "2026-11-29T10:00:00.000Z";
  assert.deepEqual(timesIn(`backup into /b fails since ${at}: full`), ["backup into /b fails since ", at, ": full"]);
  assert.deepEqual(timesIn(`verify was due at ${at} and has not run`), ["verify was due at ", at, " and has not run"]);
  assert.deepEqual(timesIn(`cannot read /b/${at}.tar`), [`cannot read /b/${at}.tar`]);
});
