import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { releaseKernelLock, tryKernelLock } from "../../fs/linux/kernel-lock.ts";
import { PID_FILE } from "./machine.ts";
import { runningIn, waitUntilGone } from "./qemu.ts";

test("a QEMU without a visible process has not ended while the kernel has its files open", async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-qemu-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  assert.equal(await waitUntilGone(folder, 0), true, "no pid file");
  const file = fs.openSync(path.join(folder, PID_FILE), "w");
  t.after(() => fs.closeSync(file));
  fs.writeSync(file, "4194304\n");
  assert.equal(await runningIn(folder, 0), null);
  tryKernelLock(file, false, { start: 0, length: 1 });
  assert.equal(await waitUntilGone(folder, 0), false);
  await assert.rejects(runningIn(folder, 0), { code: "busy" });
  const ended = runningIn(folder, 60_000);
  releaseKernelLock(file, { start: 0, length: 1 });
  assert.equal(await ended, null);
});
