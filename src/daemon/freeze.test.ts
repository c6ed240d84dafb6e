import assert from "node:assert/strict";
import { test } from "node:test";
import { type FreezeLine, FreezeWindows } from "./freeze.ts";

test("a freeze waits only a limited time for an application that does not answer, and warns", async () => {
  const windows = new FreezeWindows({ answerMs: 1 });
  const [told, warnings]: [FreezeLine[], string[]] = [[], []];
  const gone = new AbortController();
  const offer = windows.offer("w", { tell: (line) => told.push(line), signal: gone.signal });
  assert.equal(
    await windows.during(
      "w",
      async () => "done",
      (message) => warnings.push(message),
    ),
    "done",
  );
  assert.deepEqual(
    told.map((line) => Object.keys(line)[0]),
    ["freeze", "thaw"],
  );
  assert.match(warnings.join(), /1 of 1 applications .* did not answer/);
  gone.abort();
  await offer;
  assert.equal(windows.isOffered("w"), false);
});

test("a freeze ends after its time limit, and a longer save gets a warning", async () => {
  const windows = new FreezeWindows({ watchdogMs: 1 });
  const warnings: string[] = [];
  const thawed = Promise.withResolvers<void>();
  const tell = (line: FreezeLine): void => {
    if ("freeze" in line) windows.frozen(line.freeze);
    else thawed.resolve();
  };
  const offer = windows.offer("w", { tell, signal: new AbortController().signal });
  await windows.during(
    "w",
    () => thawed.promise,
    (message) => warnings.push(message),
  );
  assert.match(warnings.join(), /resumed after a minute, before the save was done/);
  assert.throws(() => windows.end("none"), { code: "not_found" });
  windows.close();
  await offer;
});
