import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { makeWorkspace } from "./make-workspace.ts";
import { findWorkspace } from "./find-workspace.ts";

/** Several processes at once make one folder a workspace, and some of them are killed. */

function scratch(context: TestContext): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "cairn-make-kill-")));
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

test("makeWorkspace after one that was killed at any step leaves exactly one new control directory", async (context) => {
  const directory = scratch(context);
  for (const name of ["workspace-staged", "control-staged", "control-named", "init-control-made", "init-registered"]) {
    const folder = join(directory, `ws-${name}`);
    mkdirSync(folder);
    const script = `process.env.CAIRN_FAILPOINT = ${JSON.stringify(name)}; const m = await import(${MODULE}); await m.makeWorkspace(${JSON.stringify(folder)}, { ${POPULATE} });`;
    const before = new Set(
      existsSync(join(directory, "state/cairn/control")) ? readdirSync(join(directory, "state/cairn/control")) : [],
    );
    const child = spawnSync(process.execPath, ["--input-type=module", "-e", script]);
    assert.equal(child.signal, "SIGKILL", `${name}: ${child.stderr.toString()}`);
    const { found } = await makeWorkspace(folder, { engine: "copy", populate: async () => undefined });
    assert.equal(findWorkspace(folder)?.controlFile.id, found.controlFile.id);
    const made = readdirSync(join(directory, "state/cairn/control")).filter(
      (each) => !before.has(each) && !each.startsWith(".cairn-tmp-"),
    );
    assert.deepEqual(made, [found.controlFile.id], name);
  }
});

test("init finishes the work of an init that was killed", (context) => {
  const directory = scratch(context);
  for (const name of ["init-folder-made", "workspace-staged", "control-staged", "control-named"]) {
    const root = join(directory, `root-${name}`);
    const script = (failpoint: string): string =>
      `process.env.CAIRN_FAILPOINT = ${JSON.stringify(failpoint)}; const m = await import(${MODULE}); const { found } = await m.initSelfContained(${JSON.stringify(root)}, { ${POPULATE} }); console.log(found.workspace.name);`;
    assert.equal(spawnSync(process.execPath, ["--input-type=module", "-e", script(name)]).signal, "SIGKILL", name);
    const again = spawnSync(process.execPath, ["--input-type=module", "-e", script("")], { encoding: "utf8" });
    assert.equal(again.stdout.trim(), "main", again.stderr);
  }
});
