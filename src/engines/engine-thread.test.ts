import assert from "node:assert/strict";
import { test } from "node:test";
import { EngineThread } from "./engine-thread.ts";

test("a thread that has not answered yet is not asked again, and is not to be used, when somebody asks it", async (t) => {
  const thread = new EngineThread("verify");
  t.after(() => thread.end());
  await thread.started();
  const first = thread.ask({ kind: "verify-end" });
  assert.equal(thread.usable, false);
  await assert.rejects(thread.ask({ kind: "verify-end" }), { code: "internal" });
  assert.equal(await first, null);
  assert.equal(thread.usable, true);
});

test("a thread can be asked on when a request could not be sent", async (t) => {
  const thread = new EngineThread("verify");
  t.after(() => thread.end());
  await thread.started();
  const content = (() => undefined) as unknown as Uint8Array;
  await assert.rejects(thread.ask({ kind: "verify-file", content }), { name: "DataCloneError" });
  assert.equal(await thread.ask({ kind: "verify-end" }), null);
});
