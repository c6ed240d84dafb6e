import assert from "node:assert/strict";
import { test } from "node:test";
import { REPOSITORY_VERBS } from "../../../verbs/index.ts";
import { parsePart } from "../../input.ts";
import { exampleOf } from "../../testing-example.ts";
import { fakeLibrary } from "../../testing-fake-library.ts";
import { runJson } from "../../testing-run.ts";

test("parsePart turns a percentage into a random part of about that size, and refuses invalid ones", () => {
  const parts = new Set(Array.from({ length: 200 }, () => parsePart("50%", "--subset").part));
  assert.deepEqual([...parts].toSorted(), [1, 2]);
  assert.deepEqual(
    ["100%", "10%", "2.5%", "0.1%"].map((text) => parsePart(text, "--subset").of),
    [1, 10, 40, 1000],
  );
  assert.deepEqual(parsePart("3/30", "--subset"), { part: 3, of: 30 });
  for (const text of ["0%", "0.0%", "101%", "-1%", "%", "10 %", "1/0", "3/2", "1/2%"])
    assert.throws(() => parsePart(text, "--subset"), { code: "usage" }, text);
});

test("backup verify exits 6 if it finds damage, also if it could not verify everything, and else 10", async () => {
  const damage = { kind: "blob_damaged", object: "ab", detail: "wrong bytes", severity: "damage", losses: [] };
  const note = { ...damage, kind: "digest_unverified", severity: "note" };
  const statusFor = async (problems: object[]): Promise<unknown> => {
    const verify = () => ({ ...(exampleOf(REPOSITORY_VERBS.verify.output) as object), restored: [], problems });
    const { status } = await runJson(["backup", "verify", "-r", "x"], { fake: fakeLibrary({ verify }) });
    return status;
  };
  assert.deepEqual(await Promise.all([[], [note], [damage], [damage, note]].map(statusFor)), [0, 10, 6, 6]);
});
