import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Envelope } from "./envelope.ts";

const ENTRY = fileURLToPath(new URL("./testing-entry.ts", import.meta.url));
const MAIN = fileURLToPath(new URL("./main.ts", import.meta.url));

async function collect(stream: NodeJS.ReadableStream): Promise<string> {
  let text = "";
  for await (const piece of stream) text += String(piece);
  return text;
}

test("the version is answered by the process itself", () => {
  const ran = spawnSync(process.execPath, [MAIN, "--version"], { encoding: "utf8" });
  assert.match(ran.stdout, /^\d+\.\d+\.\d+\n$/);
  assert.equal(ran.status, 0);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`${signal} stops the work and exits 130 with the envelope`, async () => {
    const child = spawn(process.execPath, [ENTRY, "save", "--json"], { env: { ...process.env, FAKE_SAVE: "wait" } });
    const output = collect(child.stdout);
    await once(child.stderr, "data");
    child.kill(signal);
    const [status] = (await once(child, "close")) as [number];
    const envelope = JSON.parse(await output) as Envelope;
    assert.deepEqual(
      [status, envelope.ok, envelope.error?.code, envelope.command],
      [130, false, "interrupted", "save"],
    );
  });
}

test("a reader that has gone is no failure", async () => {
  const child = spawn("/bin/sh", ["-c", `"$0" "$1" history; echo "status $?" >&2`, process.execPath, ENTRY], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.destroy();
  assert.equal(await collect(child.stderr), "status 0\n");
});

test("a closed stdout is no failure", () => {
  const ran = spawnSync("/bin/sh", ["-c", `"$0" "$1" save >&-`, process.execPath, ENTRY], { encoding: "utf8" });
  assert.deepEqual([ran.status, ran.stderr], [0, ""]);
});

test(
  "a result that could not be written is a failure",
  { skip: existsSync("/dev/full") ? false : "no /dev/full" },
  () => {
    for (const line of ["history", "save --json"]) {
      const script = `"$0" "$1" ${line} >/dev/full`;
      const ran = spawnSync("/bin/sh", ["-c", script, process.execPath, ENTRY], { encoding: "utf8" });
      assert.equal(ran.status, 8, line);
      assert.match(ran.stderr, /^cairn: what was to be said could not be written: .*ENOSPC/);
    }
  },
);
