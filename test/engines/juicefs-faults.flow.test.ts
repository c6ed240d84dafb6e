import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import type { Client } from "../../src/contract/index.ts";
import { startCairn } from "../fixtures/command.ts";
import { assertHeldTidy } from "../fixtures/held-place.ts";
import { juicefsVolume, type JuicefsVolume } from "../fixtures/juicefs.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { assertNoLeftovers, cairnLibrary } from "../fixtures/work.ts";

/** What only an engine whose clones another program makes has to bear. */

interface Faulty {
  volume: JuicefsVolume;
  folder: string;
  client: Client;
  /** Where the program was; a script that a test writes there may call what is at `whole`. */
  program: string;
  whole: string;
}

/** A workspace with the engine, whose program has been put aside. Null where there is none: skipped. */
async function faultyClones(t: TestContext): Promise<Faulty | null> {
  const volume = juicefsVolume(t, "stand-in");
  if (volume === null) return null;
  const folder = path.join(volume.root, "ws");
  fs.mkdirSync(folder);
  makeFirst(folder);
  const client = await (await cairnLibrary()).init(folder, { engineType: "juicefs-clone" });
  const [program, whole] = [path.join(volume.programs, "juicefs"), path.join(volume.programs, "whole")];
  fs.renameSync(program, whole);
  return { volume, folder, client, program, whole };
}

function writeProgram(program: string, lines: string): void {
  fs.writeFileSync(program, `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
}

test("a folder on JuiceFS is cloned if juicefs-clone is requested, and saved by copy if the program is missing", async (t) => {
  const volume = juicefsVolume(t, "stand-in");
  if (volume === null) return;
  const library = await cairnLibrary();
  const folder = path.join(volume.root, "a b", "ws");
  fs.mkdirSync(folder, { recursive: true });
  makeFirst(folder);
  const withProgram = process.env["PATH"];
  const { engine, engine_reasons: reasons } = await library.detectEngine(folder);
  assert.equal(engine, "copy", JSON.stringify(reasons));
  assert.match(reasons.find((each) => each.engine === "juicefs-clone")?.reason ?? "", /works here/);
  assert.deepEqual(fs.readdirSync(volume.root), ["a b"], "nothing is left");
  const client = await library.init(folder, { engineType: "juicefs-clone" });
  assert.equal(client.engineType, "juicefs-clone");
  assert.equal(path.dirname(client.controlDirectory), path.join(volume.root, ".cairn-control"));
  const held = await client.save();
  assert.deepEqual([held.effective_engine, held.degraded, held.sealed], ["juicefs-clone", [], false]);

  process.env["PATH"] = withProgram!.slice(volume.programs.length + 1);
  const without = await library.detectEngine(folder);
  assert.equal(without.engine, "juicefs-clone", "it is the one that the workspace has");
  const why = without.engine_reasons.find(({ engine: each }) => each === "juicefs-clone");
  assert.match(why?.reason ?? "", /program juicefs is not/);
  assert.match(why?.hint ?? "", /install/);
  const saved = await client.save();
  assert.deepEqual([saved.engine, saved.effective_engine, saved.complete], ["juicefs-clone", "copy", true]);
  assert.equal(saved.degraded[0]?.what, "juicefs-clone");
  assert.match(saved.degraded[0]?.reason ?? "", /program juicefs is not/);
  const { healthy, findings } = await client.doctor();
  const finding = findings.find(({ kind }) => kind === "engine");
  assert.deepEqual([healthy, finding?.severity], [true, "warning"]);
  assert.match(finding?.detail ?? "", /program juicefs is not .*; install/);
  process.env["PATH"] = withProgram;
  assert.ok((await client.doctor()).findings.every(({ kind }) => kind !== "engine"));
  await client.seal();
  const digests = (await client.history()).save_points.map((each) => each.payload_root_hash);
  assert.deepEqual(digests, [walkDigests(folder).state, walkDigests(folder).state]);
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("the choice of an engine can be interrupted during a trial clone, and leaves no files", async (t) => {
  const volume = juicefsVolume(t, "stand-in");
  if (volume === null) return;
  const [folder, began] = [path.join(volume.root, "ws"), path.join(volume.programs, "began")];
  fs.mkdirSync(folder);
  writeProgram(path.join(volume.programs, "juicefs"), `echo > ${began}\nexec sleep 15`);
  const library = await cairnLibrary();
  for (const probe of [
    async (signal: AbortSignal) => library.detectEngine(folder, { signal }),
    async (signal: AbortSignal) => library.validateEngine(folder, "juicefs-clone", { signal }),
    async (signal: AbortSignal) => library.init(folder, { signal }),
  ]) {
    const controller = new AbortController();
    const stopped = assert.rejects(probe(controller.signal), { code: "interrupted" });
    while (!fs.existsSync(began)) await setTimeout(5);
    controller.abort();
    await stopped;
    assert.deepEqual(fs.readdirSync(volume.root), ["ws"]);
    fs.rmSync(began);
  }
});

test("a save stores the folder by copy if JuiceFS makes a broken clone, and the point gives the reason", async (t) => {
  const at = await faultyClones(t);
  if (at === null) return;
  const { folder, client, program } = at;
  const { state } = walkDigests(folder);
  for (const [lines, why] of [
    ['"${0%/*}/whole" "$@" && rm "$4/big" && touch -r "$3" "$4"', /big is not in the clone/],
    ['"${0%/*}/whole" "$@" && touch "$4/moded/mode"', /another time/],
    ['echo "<FATAL>: clone failed: input/output error" >&2; exit 1', /input\/output error/],
    ["echo nonsense", /there is no clone at/],
    ['mkdir "$4"; echo "permission denied" >&2; exit 1', /permission denied/],
  ] as const) {
    writeProgram(program, lines);
    const saved = await client.save();
    assert.deepEqual([saved.effective_engine, saved.complete], ["copy", true], lines);
    assert.equal(saved.payload_root_hash, state);
    assert.match(saved.degraded[0]?.reason ?? "", why);
  }
  assert.deepEqual((await client.verifyAll()).problems, []);
  assertNoLeftovers(client, folder, "fallen back");
});

test("a save lists an entry that a JuiceFS clone misses as left out, with its folder, if the entry was replaced", async (t) => {
  const at = await faultyClones(t);
  if (at === null) return;
  const { client, program } = at;
  const replace = 'cp -p "$3/big" "$3/new" && mv "$3/new" "$3/big"';
  const lines = `"\${0%/*}/whole" "$@" && rm "$4/big" && ${replace} && touch -r "$3" "$4"`;
  writeProgram(program, lines);
  const saved = await client.save();
  assert.deepEqual([saved.effective_engine, saved.complete], ["juicefs-clone", false]);
  assert.deepEqual(saved.left_out.map(({ path: where }) => where).toSorted(), ["", "big"]);
  await client.seal();
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("a JuiceFS clone that runs on after its save was killed leaves no point and no folder", async (t) => {
  const at = await faultyClones(t);
  if (at === null) return;
  const { volume, folder, client, program, whole } = at;
  const [begun, ended] = [path.join(volume.programs, "begun"), path.join(volume.programs, "ended")];
  // Both before and after the next call has cleaned up.
  for (const afterwards of [false, true]) {
    const wait = afterwards ? `while [ -e '${begun}' ]; do sleep 0.05; done;` : "sleep 0.3;";
    const lines = `touch '${begun}'; ${wait} '${whole}' "$@"; touch '${ended}'`;
    writeProgram(program, lines);
    const saving = startCairn(["save", folder]);
    await until(() => fs.existsSync(begun));
    saving.child.kill("SIGKILL");
    await saving.ended;
    if (!afterwards) await until(() => fs.existsSync(ended));
    fs.rmSync(program);
    fs.symlinkSync(whole, program);
    const points = (await client.history()).save_points.length;
    const saved = await client.save();
    assert.equal(saved.effective_engine, "juicefs-clone");
    fs.rmSync(begun);
    await until(() => fs.existsSync(ended));
    for (const each of [ended, program]) fs.rmSync(each);
    await client.seal();
    const { save_points: all, damaged } = await client.history();
    assert.deepEqual([all.length, damaged], [points + 1, []]);
    assert.equal(all[0]!.payload_root_hash, walkDigests(folder).state);
    assertHeldTidy(
      { engine: "juicefs-clone", volume: { kind: "juicefs", root: volume.root }, folder, client },
      `${afterwards}`,
    );
  }
});

/** Waits for something that another process does. */
async function until(isSo: () => boolean): Promise<void> {
  for (let i = 0; !isSo(); i++) {
    assert.ok(i < 600, "it does not happen");
    await setTimeout(50);
  }
}
