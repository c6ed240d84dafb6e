import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Client, Finding } from "../../src/contract/index.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

/** An interrupted command whose journal was damaged: named, taken out of the way when asked, and nothing lost by it. */

interface Scene {
  folder: string;
  client: Client;
  journal: string;
  kept: string;
  /** what was there before the restore that was killed */
  before: FolderState;
  /** as the kill left it */
  half: FolderState;
}

/** A workspace with one point. */
async function onePoint(name: string) {
  const folder = newFolder(name);
  makeFirst(folder);
  const client = await clientOf(folder);
  const { save_point_id: first } = await client.save();
  const control = client.controlDirectory;
  return {
    folder,
    client,
    first,
    journal: path.join(control, "workspaces/main/journal"),
    kept: path.join(control, "kept"),
  };
}

/** A restore killed between its steps. */
async function halfRestored(step = 6): Promise<Scene> {
  const { first, ...scene } = await onePoint("damaged");
  const { folder, client } = scene;
  makeSecond(folder);
  await client.save();
  makeUnsaved(folder);
  const before = readFolder(folder);
  assert.ok(cairn(["restore", first, "-C", folder], { failpoint: `restore.step:${step}` }).killed);
  return { ...scene, before, half: readFolder(folder) };
}

function flip(file: string, at: number): void {
  const bytes = fs.readFileSync(file);
  bytes[Math.floor(bytes.length * at)]! ^= 1;
  fs.writeFileSync(file, bytes);
}

function journalFindings(findings: readonly Finding[]): Finding[] {
  return findings.filter(({ kind }) => kind === "journal");
}

function blocked({ folder }: Scene): void {
  for (const args of [["save"], ["status"], ["undo"]]) {
    const done = cairn([...args, "-C", folder]);
    assert.equal(done.status, 6, `${args[0]}: ${done.stdout}`);
    assert.match(done.error!.hint!, /cairn -C \S+ doctor --repair/);
  }
}

/** All content of files below a directory. */
function contents(directory: string): string[] {
  return fs
    .readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => fs.readFileSync(path.join(entry.parentPath, entry.name), "latin1"));
}

/** After the repair everything works, the folder is as it was left, and what was there before can be had. */
async function checkMended(scene: Scene): Promise<void> {
  const { folder, client, journal, kept, before, half } = scene;
  assertFolder(folder, half, "a repair leaves the folder alone");
  assert.deepEqual(fs.readdirSync(journal), []);
  const after = await client.doctor();
  assert.deepEqual(journalFindings(after.findings), []);
  assert.equal(after.healthy, true);
  assert.equal(after.findings.filter(({ kind }) => kind === "kept").length, fs.readdirSync(kept).length);
  cairnOk(["save", "-m", "half", "-C", folder]);
  const points = (await client.history(undefined, 0, { all: true })).save_points;
  const undo = points.find(({ cause }) => cause["kind"] === "restore");
  await client.restore({ target: undo!.save_point_id });
  assertFolder(folder, before, "what was there before the restore");
  await client.undo();
  assertFolder(folder, half, "and back again");
  assert.deepEqual((await client.verifyAll()).problems, []);
}

const DAMAGES: Record<string, (journal: string) => void> = {
  "its journal is truncated": (journal) => fs.truncateSync(path.join(journal, "restore.json"), 100),
  "one bit of its journal is flipped": (journal) => flip(path.join(journal, "restore.json"), 0.6),
  "one bit of its steps is flipped": (journal) => flip(path.join(journal, "restore.steps"), 0.5),
  "one of its steps is missing": (journal) => {
    const file = path.join(journal, "restore.steps");
    const lines = fs.readFileSync(file, "utf8").split("\n");
    fs.writeFileSync(file, [...lines.slice(0, 2), ...lines.slice(3)].join("\n"));
  },
  "its steps file is empty": (journal) => fs.truncateSync(path.join(journal, "restore.steps")),
};

for (const [name, damage] of Object.entries(DAMAGES)) {
  test(`doctor --repair sets the files of a killed restore aside if ${name}`, async () => {
    const scene = await halfRestored();
    const { client, journal, kept, folder } = scene;
    damage(journal);
    blocked(scene);
    const found = await client.doctor();
    assert.equal(found.healthy, false);
    const [finding, ...more] = journalFindings(found.findings);
    assert.deepEqual(more, []);
    assert.equal(finding!.severity, "damage");
    assert.match(finding!.detail, /a restore was interrupted and cannot be finished: .*restore\.(json|steps): /);
    assert.ok(finding!.repair?.includes(kept));
    assert.ok(!found.findings.some(({ kind }) => kind === "interrupted"), "nobody is told that it will be finished");
    assert.equal(fs.existsSync(kept), false, "a look changes nothing");
    assertFolder(folder, scene.half, "a look changes nothing");
    const mended = cairnOk(["doctor", "--repair", "-C", folder]);
    const [repaired] = journalFindings(mended.data["findings"] as Finding[]);
    assert.equal(repaired!.repaired, true);
    const [place, ...others] = fs.readdirSync(kept);
    assert.deepEqual(others, []);
    assert.ok(repaired!.repair!.includes(path.join(kept, place!)));
    const names = fs.readdirSync(path.join(kept, place!));
    assert.ok(names.includes("restore.json") && names.includes("restore.steps"), names.join());
    assert.ok(
      names.some((each) => /^cairn-restore-[0-9a-f]{16}$/.test(each)),
      names.join(),
    );
    // Nobody saved it but the undo point; it was displaced before the kill.
    assert.ok(contents(path.join(kept, place!)).some((text) => text === "nobody saved this\n"));
    await checkMended(scene);
  });
}

test("the next doctor --repair finishes a killed repair of a damaged journal", async () => {
  for (const failpoint of ["doctor.staging-kept", "doctor.journal-kept", "doctor.journal-kept:2"]) {
    const scene = await halfRestored();
    const { journal, folder, kept } = scene;
    flip(path.join(journal, "restore.steps"), 0.5);
    assert.ok(cairn(["doctor", "--repair", "-C", folder], { failpoint }).killed, failpoint);
    cairnOk(["doctor", "--repair", "-C", folder]);
    assert.ok(contents(kept).includes("nobody saved this\n"), failpoint);
    fs.rmSync(path.join(journal, "restore.steps"), { force: true });
    await checkMended(scene);
  }
});

test("doctor --repair sets unreadable journals of a cleanup, an exchange and a conversion aside", async () => {
  const { folder, client, journal } = await onePoint("journals");
  fs.writeFileSync(path.join(journal, "cleanup.json"), '{"format":"cairn.unfinished","drop":');
  fs.writeFileSync(path.join(journal, "exchange.json"), "nonsense");
  fs.writeFileSync(path.join(journal, "conversion.json"), '{"format":"cairn.unfinished","version":1}\n');
  assert.equal(cairn(["save", "-C", folder]).status, 6);
  assert.equal(journalFindings((await client.doctor()).findings).length, 3);
  await client.doctor({ repair: true });
  assert.deepEqual(fs.readdirSync(journal), []);
  cairnOk(["save", "-C", folder]);
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("commands refuse a journal of a newer version, and doctor --repair leaves the journal in place", async () => {
  const { folder, client, journal, kept } = await onePoint("newer");
  const newer: [string, (file: string) => void][] = [
    ["cleanup.json", (file) => fs.writeFileSync(file, '{"format":"cairn.unfinished","version":2,"points":"some"}\n')],
    ["restore.json", (file) => fs.writeFileSync(file, '{"format":"cairn.unfinished","version":5,"points":"some"}\n')],
    ["exchange.json", (file) => fs.writeFileSync(file, '{"format":"cairn.unfinished","version":2}\n')],
    ["conversion.json", (file) => fs.writeFileSync(file, '{"format":"cairn.unfinished","version":2}\n')],
  ];
  for (const [name, write] of newer) {
    write(path.join(journal, name));
    assert.equal(cairn(["save", "-C", folder]).error?.code, "newer_version", name);
    const [finding, ...more] = journalFindings((await client.doctor({ repair: true })).findings);
    assert.deepEqual([finding?.repair, finding?.severity, more.length], [undefined, "damage", 0], name);
    assert.deepEqual([fs.readdirSync(journal), fs.existsSync(kept)], [[name], false]);
    assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, 1);
    fs.rmSync(path.join(journal, name));
  }
});

test("commands refuse work that an earlier build began, and doctor --repair moves its record aside", async () => {
  const { folder, client, journal, kept } = await onePoint("earlier");
  const earlier: [string, (file: string) => void][] = [
    ["cleanup.json", (file) => fs.writeFileSync(file, '{"format":"cairn.cleanup","version":1,"drop":[]}\n')],
    ["paths.json", (file) => fs.writeFileSync(file, '{"format":"cairn.removed-paths","version":1,"paths":[]}\n')],
    ["convert", (file) => fs.symlinkSync("cairn.convert.1:.cairn-original-0123456789abcdef:0:0:0", file)],
    ["exchange", (file) => fs.symlinkSync(`cairn.exchange.1:${"a".repeat(32)}:restore`, file)],
    ["folder", (file) => fs.symlinkSync("cairn.folder.1:.cairn-tmp-1-2:-", file)],
    ["restore.json", (file) => fs.writeFileSync(file, '{"format":"cairn.restore","version":4}\n')],
  ];
  for (const [name, write] of earlier) {
    write(path.join(journal, name));
    const { status, error } = cairn(["save", "-C", folder]);
    assert.deepEqual([status, error?.code], [7, "refused"], name);
    assert.ok(error!.message.includes(path.join(journal, name)), error!.message);
    assert.match(
      error!.hint!,
      /^run the build that began it, .*; without that build: run `cairn -C \S+ doctor --repair`$/,
    );
    const [finding] = journalFindings((await client.doctor()).findings);
    assert.match(finding!.detail, /an earlier build of Cairn began this work/);
    assert.deepEqual(fs.readdirSync(journal), [name], "a look changes nothing");
    await client.doctor({ repair: true });
    assert.deepEqual(fs.readdirSync(journal), [], name);
    cairnOk(["save", "-C", folder]);
  }
  // A seal that was killed costs only space.
  fs.symlinkSync("a".repeat(32), path.join(journal, "sealing"));
  cairnOk(["save", "-C", folder]);
  fs.rmSync(path.join(journal, "sealing"));
  const names = fs.readdirSync(kept).flatMap((place) => fs.readdirSync(path.join(kept, place)));
  assert.deepEqual(names.toSorted(), earlier.map(([name]) => name).toSorted());
});

test("commands refuse a new folder that an earlier build began, and go on once its record is gone", async () => {
  const { folder, client } = await onePoint("earlier-partial");
  const record = path.join(client.controlDirectory, "partial/0123456789abcdef.json");
  fs.mkdirSync(path.dirname(record), { recursive: true });
  fs.writeFileSync(record, '{"format":"cairn.partial","version":1,"purpose":"fork"}\n');
  const { status, error } = cairn(["save", "-C", folder]);
  assert.deepEqual([status, error?.code], [7, "refused"]);
  assert.ok(error!.message.includes(record), error!.message);
  assert.match(error!.hint!, /without that build: remove that file, and the folder \.cairn-partial-/);
  fs.rmSync(record);
  cairnOk(["save", "-C", folder]);
});

test("commands refuse restore steps of a newer version, and repair and release leave the steps in place", async () => {
  const { folder, client, journal, kept, half } = await halfRestored();
  const file = path.join(journal, "restore.steps");
  const own = fs.readFileSync(file, "utf8");
  fs.writeFileSync(file, '{"format":"cairn.restore-steps","version":3}\n{"op":"nobody knows"}\n');
  for (const args of [["save"], ["undo"], ["status"]]) {
    const { error } = cairn([...args, "-C", folder]);
    assert.deepEqual(
      [error?.code, error?.hint],
      ["newer_version", "a newer Cairn has worked here: use it from now on"],
      args[0],
    );
    assert.ok(error!.message.includes(file), error!.message);
  }
  await assert.rejects(client.release({ deletePoints: true }), { code: "newer_version" });
  assert.equal(cairn(["inspect", file]).error?.code, "newer_version");
  const [finding, ...more] = journalFindings((await client.doctor({ repair: true })).findings);
  assert.deepEqual([finding?.repair, finding?.severity, more.length], [undefined, "damage", 0]);
  assert.equal(fs.existsSync(kept), false);
  assertFolder(folder, half, "nothing was touched");
  fs.writeFileSync(file, own);
  cairnOk(["save", "--skip-unchanged", "-C", folder]);
  assert.deepEqual(fs.readdirSync(journal), []);
});

test("doctor --repair leaves the staging folder of another workspace's restore in place", async () => {
  const scene = await halfRestored();
  const { client, folder, journal } = scene;
  const fork = path.join(newFolder("parent"), "fork");
  fs.renameSync(path.join(journal, "restore.json"), path.join(journal, "..", "restore.json"));
  fs.renameSync(path.join(journal, "restore.steps"), path.join(journal, "..", "restore.steps"));
  cairnOk(["fork", "head", fork, "-C", folder]);
  fs.rmSync(path.join(fork, "same"), { recursive: true });
  const other = await clientOf(fork);
  assert.equal(other.controlDirectory, client.controlDirectory);
  assert.ok(cairn(["restore", "head", "-C", fork], { failpoint: "restore.committed" }).killed);
  for (const name of ["restore.json", "restore.steps"])
    fs.renameSync(path.join(journal, "..", name), path.join(journal, name));
  flip(path.join(journal, "restore.json"), 0.6);
  await client.doctor({ repair: true });
  await other.status();
  assert.equal((await other.status()).clean, true, "the other one's restore was finished");
  await checkMended(scene);
});
