import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { duringHooks, hooks, setHooks } from "./hooks.ts";
import { hasCode, testRoot } from "./testing-folder.ts";

const ID = "0a".repeat(16);

/** Returns a folder with one file that counts as a workspace, and its root, in a state directory of the test's own. */
function place(t: TestContext): { root: string; workspaceAt: (name: string) => Workspace } {
  const root = testRoot(t);
  const workspaceAt = (name: string): Workspace => {
    mkdirSync(join(root, name));
    writeFileSync(join(root, name, "file"), "");
    const found = { folder: Buffer.from(join(root, name)), workspace: { id: ID, name: "main" }, control: { root } };
    return { found, requireNotOthers: () => undefined } as unknown as Workspace;
  };
  return { root, workspaceAt };
}

async function saveOf(
  found: FoundWorkspace,
  warnings: string[] = [],
): Promise<{ hooks?: { exit_code: number | null }[] }> {
  return duringHooks(found, "save", { onWarning: (text) => void warnings.push(text) }, async () => ({}));
}

test("a save is refused, and does not begin, if the command before it fails", async (t) => {
  const { root, workspaceAt } = place(t);
  const workspace = workspaceAt("work");
  await setHooks(workspace, { beforeSave: "echo no room; exit 3", afterSave: `echo over > ${root}/after` });
  let began = false;
  const save = duringHooks(workspace.found, "save", {}, async () => {
    began = true;
    return {};
  });
  await assert.rejects(
    save,
    (error) => hasCode("refused")(error) && /status 3: no room/.test((error as Error).message),
  );
  assert.deepEqual([began, existsSync(join(root, "after"))], [false, true]);
});

test("a save whose command after it fails is done, with a warning", async (t) => {
  const { workspaceAt } = place(t);
  const workspace = workspaceAt("work");
  await setHooks(workspace, { afterSave: "exit 4" });
  const warnings: string[] = [];
  const { hooks: ran } = await saveOf(workspace.found, warnings);
  assert.deepEqual(
    ran?.map(({ exit_code }) => exit_code),
    [4],
  );
  assert.match(warnings.join(), /the command after the save of .* failed with status 4/);
});

test("commands that were set for a folder do not run in another folder with the same workspace id", async (t) => {
  const { root, workspaceAt } = place(t);
  await setHooks(workspaceAt("work"), { beforeSave: `echo ran >> ${root}/log` });
  const copy = workspaceAt("copy");
  await assert.rejects(saveOf(copy.found), hasCode("refused"));
  assert.throws(() => hooks(copy), hasCode("refused"));
  assert.equal(existsSync(join(root, "log")), false);
  await setHooks(copy, { beforeSave: `echo own >> ${root}/log` });
  await saveOf(copy.found);
  assert.equal(readFileSync(join(root, "log"), "utf8"), "own\n");
});
