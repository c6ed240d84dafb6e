import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

/** Several processes at once make one folder a workspace. */

function scratch(context: TestContext): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "cairn-make-race-")));
  process.env["XDG_STATE_HOME"] = join(directory, "state");
  mkdirSync(join(directory, "ws"));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

async function raceOf(count: number, script: string): Promise<string[]> {
  const children = Array.from({ length: count }, () =>
    spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] }),
  );
  return Promise.all(
    children.map(async (child) => {
      let text = "";
      child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
      await once(child, "close");
      return text.trim();
    }),
  );
}

const MODULE = JSON.stringify(new URL("make-workspace.ts", import.meta.url).href);
const POPULATE =
  'engine: "copy", populate: async (staged) => { (await import("node:fs")).writeFileSync(staged.storePassword, "x"); }';

test("processes that save or init the same new folder at the same time get the same control directory", async (context) => {
  const directory = scratch(context);
  for (const call of [
    `makeWorkspace(${JSON.stringify(join(directory, "ws"))}`,
    `initSelfContained(${JSON.stringify(join(directory, "new"))}`,
  ]) {
    const ids = await raceOf(
      6,
      `const m = await import(${MODULE}); const { found } = await m.${call}, { ${POPULATE} }); console.log(found.controlFile.id, found.workspace.id);`,
    );
    assert.match(ids[0]!, /^[0-9a-f]{32} [0-9a-f]{32}$/);
    assert.equal(new Set(ids).size, 1, ids.join("\n"));
  }
  assert.equal(readdirSync(join(directory, "state", "cairn", "control")).length, 1);
  assert.deepEqual(readdirSync(join(directory, "new")).sort(), [".cairn", "main"]);
});
