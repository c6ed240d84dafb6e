import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Client, StatusResult } from "../../src/contract/index.ts";
import { cairn, cairnOk, type RunOptions, SCRATCH } from "../fixtures/command.ts";
import { assertFolder, type FolderState, readFolder, type StateOptions } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { assertNoLeftovers, cairnLibrary, clientOf, newFolder, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, oneOf, passesOf, random, saveAndCheck } from "./rounds.ts";
import { variant } from "../fixtures/long.ts";

interface Scene {
  folder: string;
  client: Client;
  first: FolderState;
  firstId: string;
}

async function scene(name: string): Promise<Scene> {
  const folder = newFolder(name);
  makeFirst(folder);
  const client = await clientOf(folder);
  const { save_point_id: firstId } = await client.save({ message: "first" });
  const first = readFolder(folder);
  makeSecond(folder);
  await client.save({ message: "second" });
  makeUnsaved(folder);
  return { folder, client, first, firstId };
}

interface Kills {
  args: readonly string[];
  wanted: FolderState;
  /** at most so many passes, unless CAIRN_TEST_LONG is set */
  limit: number;
  /** brings `before` back after a command that was finished */
  back?: () => Promise<unknown>;
  /** the root's own time is left out: entries come and go in it */
  compare?: StateOptions;
  /** kills what finishes the first one too, so many times */
  again?: number;
  /** how the command is run */
  run?: RunOptions;
}

/** Kills at each pass; after each the folder is as before or as wanted, and `undo` brings back what was. */
async function killEverywhere(
  { folder, client }: Scene,
  { args, wanted, limit, back, again = 0, compare = {}, run = {} }: Kills,
): Promise<void> {
  const goBack = back ?? (async () => client.undo());
  const before = readFolder(folder, compare);
  const names = passesOf(args, run);
  assertFolder(folder, wanted, `${args.join(" ")}, not killed`, compare);
  await goBack();
  assertFolder(folder, before, "undone, not killed", compare);
  const outcomes = new Set<string>();
  for (const pass of chosenPasses(names, limit)) {
    const name = killAt(args, pass, run);
    const kills = [`${pass} (${name ?? "none"})`];
    for (let i = 0; i < again; i++) {
      const next = 1 + Math.floor(random() * 30);
      kills.push(`${next} (${killAt(["save", "--skip-unchanged", "-C", folder], next) ?? "none"})`);
    }
    const where = `${args[0]} killed at ${kills.join(", then at ")}`;
    await saveAndCheck(client, folder, where);
    const outcome = oneOf(folder, { before, wanted }, where, compare);
    outcomes.add(outcome);
    assertNoLeftovers(client, folder, where);
    // Nobody has edited anything.
    const { recovered } = await client.status();
    assert.deepEqual(
      recovered.flatMap(({ kept, incomplete }) => [...kept, incomplete ?? []].flat()),
      [],
      where,
    );
    if (outcome === "before") continue;
    await goBack();
    assertFolder(folder, before, `${where}, then undone`, compare);
  }
  assert.equal(outcomes.size, 2, "both outcomes were seen");
  resticCheck(client, args.join(" "));
}

test("restore, if its recovery is killed several times too, leaves the old or the new state", variant, async () => {
  const at = await scene("again");
  await killEverywhere(at, { args: ["restore", at.firstId, "-C", at.folder], wanted: at.first, limit: 7, again: 2 });
});

test("a restore that stages files in the workspace, if killed, leaves no staged file there", async (t) => {
  const elsewhere = "/dev/shm";
  if (!fs.existsSync(elsewhere) || fs.statSync(elsewhere).dev === fs.statSync(SCRATCH).dev)
    return t.skip("there is no second file system");
  const controlDirectory = fs.mkdtempSync(path.join(elsewhere, "cairn-test-"));
  t.after(() => fs.rmSync(controlDirectory, { recursive: true, force: true }));
  const folder = newFolder("elsewhere");
  const client = await (
    await cairnLibrary()
  ).init(folder, { controlDirectory: path.join(controlDirectory, "control") });
  makeFirst(folder);
  const { save_point_id: firstId } = await client.save();
  const compare = { withoutRootTime: true };
  const first = readFolder(folder, compare);
  makeSecond(folder);
  makeUnsaved(folder);
  await killEverywhere(
    { folder, client, first, firstId },
    { args: ["restore", firstId, "-C", folder], wanted: first, compare, limit: 6 },
  );
});

test("files that were edited after a restore was killed are kept, listed, and part of the undo point", async () => {
  const at = await scene("edited");
  const { folder, client } = at;
  const args = ["restore", at.firstId, "-C", folder];
  const before = readFolder(folder);
  const names = passesOf(args);
  await client.undo();
  const steps = names.flatMap((name, i) => (name === "restore.step" ? [i + 1] : []));
  const chosen = [
    names.indexOf("restore.committed") + 1,
    ...steps.filter((_pass, i) => i % Math.ceil(steps.length / 3) === 0),
    names.indexOf("restore.swapped") + 1,
  ];
  for (const pass of chosen) {
    const where = `killed at pass ${pass}, ${killAt(args, pass)}, then edited`;
    const edited = new Map<string, string>();
    // One that the restore changes, one that it adds or removes, one that it leaves alone, one that is new, and two in directories that go or come.
    for (const name of [
      "same/updated.txt",
      "same/added.txt",
      "same/kept.txt",
      "new-since",
      "goes/new-since",
      "was-file/new/new-since",
      "big",
    ]) {
      if (!fs.existsSync(path.dirname(path.join(folder, name)))) continue;
      // As editors do: what has another name, or is displaced already, is not written to.
      fs.rmSync(path.join(folder, name), { force: true });
      fs.writeFileSync(path.join(folder, name), `${where}: ${name}\n`);
      edited.set(name, `${where}: ${name}\n`);
    }
    const status = cairnOk(["status", "-C", folder]).data as unknown as StatusResult;
    const recovered = status.recovered.at(-1)!;
    assert.equal(recovered.operation, "restore", where);
    assert.equal(recovered.outcome, "completed", where);
    const kept = recovered.kept.map(({ path: name }) => name).filter((name) => edited.has(name));
    // Nothing was done yet: all that it would have changed is listed.
    if (pass === chosen[0])
      for (const name of ["same/updated.txt", "same/added.txt", "same/kept.txt", "big"])
        assert.ok(kept.includes(name), `${where}: ${name} is not listed`);
    else if (pass < chosen.at(-1)!) assert.ok(kept.length > 0, where);
    const done = cairn(["save", "-C", folder]);
    assert.equal(done.status, 0, `${where}: ${done.stdout}${done.stderr}`);
    for (const [name, content] of edited)
      assert.equal(fs.readFileSync(path.join(folder, name), "utf8"), content, `${where}: ${name}`);
    assertNoLeftovers(client, folder, where);
    // Both what was there before the restore and the edits can be had again.
    const after = readFolder(folder);
    const [restore] = (await client.operations()).operations.filter(({ kind }) => kind === "restore");
    await client.restore({ target: restore!.undo_id! });
    oneOf(folder, { before }, `${where}: the state before`);
    await client.undo();
    assertFolder(folder, after, `${where}: undone`);
    await client.redo();
  }
});
