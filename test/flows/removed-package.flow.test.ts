import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairn, cairnOk, type Outcome, ROOT, SCRATCH, startCairn } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { assertNoLeftovers, clientOf, newFolder, pauseFile } from "../fixtures/work.ts";

/** The package of the command that runs is removed during the run: nothing of the user's reads as lost or damaged. */

const TEXTS = ["first\n", "second\n"];

let installations = 0;

/** Puts the command into `folder`, as a project has it among its packages, and returns it with a cache of its own. */
function installIn(folder: string): { command: string; env: Record<string, string> } {
  const app = path.join(folder, "tool");
  fs.mkdirSync(app, { recursive: true });
  fs.cpSync(path.dirname(buildCommand()), path.join(app, "dist"), { recursive: true });
  fs.cpSync(path.join(ROOT, "package.json"), path.join(app, "package.json"));
  fs.symlinkSync(path.join(ROOT, "node_modules"), path.join(app, "node_modules"));
  // Without cached code, each function is read from the package when it is first called.
  const env = { XDG_CACHE_HOME: path.join(SCRATCH, `cache-${installations++}`), NODE_COMPILE_CACHE: "" };
  return { command: path.join(app, "dist/cli.js"), env };
}

/** The only thing that may fail: a thread that did not run yet, because its first file is read when it starts. */
function assertEnd({ error }: Outcome, context: string): void {
  if (error === null) return;
  assert.equal(error.code, "unsupported", `${context}: ${error.message}`);
  assert.match(error.message, /a file of the package .* a worker thread: .*thread-worker\.js/, context);
}

test("a restore that removes the package of its own command is done, at the latest by the next command", async () => {
  const folder = newFolder();
  fs.writeFileSync(path.join(folder, "file"), "first\n");
  const client = await clientOf(folder);
  const { save_point_id: first } = await client.save();
  const before = readFolder(folder);
  fs.writeFileSync(path.join(folder, "file"), "second\n");
  const installed = installIn(folder);
  await client.save();
  assertEnd(cairn(["restore", first, "-C", folder], installed), "restore");
  cairnOk(["save", "--skip-unchanged", "-C", folder]);
  assertFolder(folder, before, "restored");
  assertNoLeftovers(client, folder, "restored");
});

test("a restore is done, or nothing of it, if the package is removed between any two of its steps", async () => {
  const other = path.join(SCRATCH, "elsewhere");
  const folder = newFolder();
  const client = await clientOf(folder);
  const ids: string[] = [];
  const states: ReturnType<typeof readFolder>[] = [];
  for (const text of TEXTS) {
    for (const name of ["a", "b"]) fs.writeFileSync(path.join(folder, name), text);
    ids.push((await client.save()).save_point_id);
    states.push(readFolder(folder));
  }
  const list = cairnOk(["restore", ids[0]!, "-C", folder], { failpoint: "list" });
  const names = list.failpoints.filter((name) => name.startsWith("restore."));
  assert.ok(names.includes("restore.committed") && names.includes("restore.step"), names.join(" "));
  let now = 0;
  for (const name of names) {
    const installed = installIn(other);
    const pause = pauseFile();
    const to = 1 - now;
    const restore = startCairn(["restore", ids[to]!, "-C", folder], { ...installed, failpoint: `${name}@${pause}` });
    await restore.paused;
    fs.rmSync(other, { recursive: true });
    fs.rmSync(pause);
    const ended = await restore.ended;
    assertEnd(ended, name);
    cairnOk(["save", "--skip-unchanged", "-C", folder]);
    const isBefore = ["restore.intent", "restore.staging-made", "restore.staged"].includes(name);
    // Whole, whichever it is: the thread may be needed before or after the restore is committed.
    if (ended.error === null || !isBefore || fs.readFileSync(path.join(folder, "a"), "utf8") === TEXTS[to]) now = to;
    assertFolder(folder, states[now]!, name);
    assertNoLeftovers(client, folder, name);
  }
});
