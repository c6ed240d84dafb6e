import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

test("native calls on another platform fail with one line that names the platform", () => {
  const script = `Object.defineProperty(process, "platform", { value: "darwin" });
const { newArena } = await import(${JSON.stringify(new URL("./native.ts", import.meta.url).href)});
try { newArena(1); } catch ({ code, message }) { console.log(code, message); }`;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  const { arch } = process;
  assert.equal(
    stdout,
    `unsupported Cairn runs on Linux (x64 or arm64, glibc or musl), and this is darwin on ${arch}\n`,
  );
});
