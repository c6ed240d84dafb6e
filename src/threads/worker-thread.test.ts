import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { build } from "esbuild";
import type { CairnError } from "../errors.ts";
import { WorkerThread } from "./worker-thread.ts";

test("a worker thread refuses a second request before it has answered the first", async (t) => {
  const thread = new WorkerThread("verify");
  t.after(() => thread.end());
  await thread.started();
  const first = thread.ask({ kind: "verify-end" });
  assert.equal(thread.usable, false);
  await assert.rejects(thread.ask({ kind: "verify-end" }), { code: "internal" });
  assert.equal(await first, null);
  assert.equal(thread.usable, true);
});

test("a worker thread accepts requests after a request that could not be cloned", async (t) => {
  const thread = new WorkerThread("verify");
  t.after(() => thread.end());
  await thread.started();
  const content = (() => undefined) as unknown as Uint8Array;
  await assert.rejects(thread.ask({ kind: "verify-file", content } as { kind: string }), { name: "DataCloneError" });
  assert.equal(await thread.ask({ kind: "verify-end" }), null);
});

test("starting a worker thread in a bundled program throws unsupported with a hint", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-bundled-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const outfile = join(folder, "program.mjs");
  const entry = join(import.meta.dirname, "worker-thread.ts");
  await build({ entryPoints: [entry], outfile, bundle: true, platform: "node", format: "esm" });
  const bundled = (await import(outfile)) as { WorkerThread: typeof WorkerThread };
  await assert.rejects(new bundled.WorkerThread("scan").started(), (error: CairnError) => {
    assert.deepEqual([error.code, error.retryable], ["unsupported", false]);
    assert.match(error.hint ?? "", /--external:cairnstate/);
    return true;
  });
});
