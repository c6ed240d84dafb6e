import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

/** Opens the library in a process with `CAIRN_SOCKET`. Returns the modules of HTTP that Node loaded. */
function loadedForHttp(socket: string): string[] {
  const script = `const { openLibrary } = await import(${JSON.stringify(import.meta.resolve("./library.ts"))});
    await openLibrary();
    console.log(process.moduleLoadList.filter((name) => /^NativeModule (?:https?|tls)$/.test(name)).join());`;
  const env = { ...process.env, CAIRN_SOCKET: socket };
  const said = execFileSync(process.execPath, ["--input-type=module", "--eval", script], { env, encoding: "utf8" });
  return said.trim().split(",").filter(Boolean);
}

test("a command loads the modules for HTTP only if a daemon's socket exists", () => {
  assert.deepEqual(loadedForHttp("/nowhere/cairn.sock"), []);
  assert.ok(loadedForHttp("/").includes("NativeModule http"));
});
