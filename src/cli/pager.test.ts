import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { showInPager, streamInPager } from "./pager.ts";

const LONG = "a line\n".repeat(100_000);

async function shown(pager: string, pids: (number | null)[] = []): Promise<boolean> {
  return showInPager(LONG, { PAGER: pager, PATH: process.env["PATH"] }, (pid) => void pids.push(pid));
}

test("showInPager returns false if the pager fails or is missing", async () => {
  for (const pager of ["no-such-pager-here", "/", "false", "sh -c 'kill -9 $$'", "sh -c 'exit 3'", "cat '"])
    assert.equal(await shown(pager), false, pager);
});

test("CAIRN_PAGER takes precedence over PAGER, and TERM=dumb disables the pager", async () => {
  const env = { PATH: process.env["PATH"], PAGER: "cat >/dev/null" };
  const tell = async (more: Record<string, string>): Promise<boolean> =>
    showInPager("text\n", { ...env, ...more }, () => undefined);
  assert.equal(await tell({}), true);
  assert.equal(await tell({ CAIRN_PAGER: "cat" }), false);
  assert.equal(await tell({ CAIRN_PAGER: "true", PAGER: "false" }), true);
  assert.equal(await tell({ TERM: "dumb" }), false);
});

test("showInPager returns true if the user leaves the pager early", async () => {
  assert.equal(await shown("head -c 1 >/dev/null"), true);
  assert.equal(await shown("true"), true);
});

test("streamInPager reads content no faster than the pager, and none without a pager", async () => {
  let taken = 0;
  async function* content(end = Infinity): AsyncGenerator<Uint8Array> {
    for (; taken < end; taken++) yield Buffer.from("a line\n".repeat(1000));
    throw new Error("the content failed");
  }
  const stream = async (pager: string, end?: number): Promise<boolean> =>
    streamInPager(content(end), { PAGER: pager, PATH: process.env["PATH"] }, () => undefined);
  for (const pager of ["no-such-pager-here", "cat", ""]) assert.equal(await stream(pager), false, pager);
  assert.equal(taken, 0);
  assert.equal(await stream("head -c 100000 >/dev/null"), true);
  assert.ok(taken > 10 && taken < 1000, `${taken} pieces were taken`);
  await assert.rejects(stream("cat >/dev/null", taken + 100), /the content failed/);
});

test("showInPager reports the pager's pid while the pager runs", async () => {
  const pids: (number | null)[] = [];
  assert.equal(await shown("cat >/dev/null", pids), true);
  assert.deepEqual([typeof pids[0], ...pids.slice(1)], ["number", null]);
});

test("showInPager returns false if no file descriptors are left", () => {
  const script = `
    import fs from "node:fs";
    import { setTimeout as sleep } from "node:timers/promises";
    const { showInPager } = await import("${new URL("pager.ts", import.meta.url).href}");
    const said = [];
    for (let free = 0; free < 16; free++) {
      const full = [];
      try { for (;;) full.push(fs.openSync("/dev/null")); } catch {}
      for (const fd of full.splice(0, free)) fs.closeSync(fd);
      said.push(await showInPager("text", { ...process.env, PAGER: "cat >/dev/null" }, () => undefined));
      for (const fd of full) fs.closeSync(fd);
      await sleep(20);
    }
    console.log(JSON.stringify(said));`;
  const args = ["-c", 'ulimit -n 128 && exec "$@"', "sh", process.execPath, "--input-type=module", "-e", script];
  const said = JSON.parse(execFileSync("sh", args, { encoding: "utf8" })) as boolean[];
  assert.deepEqual([said[0], said.at(-1)], [false, true]);
});
