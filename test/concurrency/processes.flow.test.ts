import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { buildCommand, cairn, cairnOk, type Outcome, ROOT, SCRATCH, startCairn } from "../fixtures/command.ts";
import { differencesOf, readFolder } from "../fixtures/folder-state.ts";
import { assertNoLeftovers, clientOf, newFolder, pauseFile, resticCheck } from "../fixtures/work.ts";

/** Processes that work on one workspace at once. */

interface Point {
  save_point_id: string;
  payload_root_hash: string;
  parent_id: string | null;
  sequence: number;
  message: string;
}

test("two processes that save at the same time make all their points, each the parent of the next", async () => {
  const folder = newFolder();
  fs.writeFileSync(path.join(folder, "f"), "0");
  const client = await clientOf(folder);
  await client.save();
  const rounds = 4;
  const save = async (name: string): Promise<Point[]> => {
    const made: Point[] = [];
    for (let i = 0; i < rounds; i++) {
      fs.writeFileSync(path.join(folder, name), `${i}`.repeat(1000 + i));
      const done = await startCairn(["save", folder, "-m", `${name} ${i}`]).ended;
      assert.equal(done.status, 0, done.stdout + done.stderr);
      made.push(done.data["save_point"] as Point);
    }
    return made;
  };
  const made = (await Promise.all([save("a"), save("b")])).flat();
  const { save_points: points, damaged } = await client.history(undefined, 0, { all: true });
  assert.deepEqual(damaged, []);
  assert.equal(points.length, 1 + made.length);
  assert.deepEqual(new Set(made.map(({ save_point_id: id }) => id)).size, made.length);
  for (let i = 0; i < points.length - 1; i++) assert.equal(points[i]!.parent_id, points[i + 1]!.save_point_id);
  assert.equal(points[0]!.payload_root_hash, walkDigests(folder).state);
  assertNoLeftovers(client, folder, "two writers");
  resticCheck(client, "two writers");
});

test("a save and a restore at the same time leave the folder in one of the saved states", async () => {
  const folder = newFolder();
  const client = await clientOf(folder);
  const states = [];
  for (let i = 0; i < 2; i++) {
    for (let file = 0; file < 30; file++) fs.writeFileSync(path.join(folder, `f${file}`), `state ${i}, file ${file}`);
    const { save_point_id: id } = await client.save();
    states.push({ id, state: readFolder(folder) });
  }
  const saver = (async () => {
    for (let i = 0; i < 6; i++) {
      const done = await startCairn(["save", folder, "-m", `${i}`]).ended;
      assert.equal(done.status, 0, done.stdout + done.stderr);
    }
  })();
  const restorer = (async () => {
    for (let i = 0; i < 6; i++) {
      const done: Outcome = await startCairn(["restore", states[i % 2]!.id, "-C", folder]).ended;
      assert.equal(done.status, 0, done.stdout + done.stderr);
    }
  })();
  await Promise.all([saver, restorer]);
  assert.ok(states.some(({ state }) => differencesOf(readFolder(folder), state).length === 0));
  const digests = new Set(
    (await Promise.all(states.map(async ({ id }) => client.resolve(id)))).map((point) => point.payload_root_hash),
  );
  const { save_points: points } = await client.history(undefined, 0, { all: true });
  for (const point of points) assert.ok(digests.has(point.payload_root_hash), `${point.message} holds a mixture`);
});

test("eight processes that open or create one self-contained workspace all get the same workspace", async () => {
  buildCommand();
  const place = path.join(SCRATCH, "together");
  const script = `const { openOrInit } = await import(${JSON.stringify(path.join(ROOT, "dist/index.js"))});
const lockTimeoutMs = 60_000;
const client = await openOrInit(process.argv[1], { selfContained: true, lockTimeoutMs });
const point = await client.save({ message: "from " + process.pid, lockTimeoutMs });
console.log(JSON.stringify({ id: client.repoId, root: client.repoRoot, workspace: client.workspace.id, point: point.save_point_id }));`;
  const results = await Promise.all(
    Array.from({ length: 8 }, async () => run(process.execPath, ["--input-type=module", "-e", script, "--", place])),
  );
  for (const { status, stderr } of results) assert.equal(status, 0, stderr);
  const said = results.map(
    ({ stdout }) => JSON.parse(stdout) as { id: string; root: string; workspace: string; point: string },
  );
  assert.equal(new Set(said.map(({ id }) => id)).size, 1);
  assert.equal(new Set(said.map(({ workspace }) => workspace)).size, 1);
  assert.equal(new Set(said.map(({ point }) => point)).size, 8);
  assert.deepEqual(fs.readdirSync(place).toSorted(), [".cairn", "main"]);
});

test("eight first saves of one folder at once make one workspace", async () => {
  const folder = newFolder();
  fs.writeFileSync(path.join(folder, "f"), "x");
  const before = controls();
  const done = await Promise.all(
    Array.from({ length: 8 }, async () => startCairn(["save", folder, "--lock-timeout", "60s"]).ended),
  );
  for (const { status, stdout, stderr } of done) assert.equal(status, 0, stdout + stderr);
  assert.equal(controls() - before, 1);
  assert.equal((await (await clientOf(folder)).history(undefined, 0, { all: true })).save_points.length, 8);
});

function controls(): number {
  return fs.readdirSync(path.join(SCRATCH, "state/cairn/control")).length;
}

test("init fails as busy while a standalone fork is in progress, and the fork is completed", async () => {
  const folder = newFolder();
  fs.writeFileSync(path.join(folder, "f"), "0");
  const client = await clientOf(folder);
  await client.save();
  const target = `${folder}-fork`;
  const pause = pauseFile();
  const args = ["fork", "head", target, "--standalone", "-C", folder];
  const forking = startCairn(args, { failpoint: `control-staged@${pause}` });
  await forking.paused;
  const other = newFolder();
  const { error } = cairn(["init", other, "--lock-timeout", "1s"]);
  fs.rmSync(pause);
  const forked = await forking.ended;
  assert.equal(forked.status, 0, forked.stdout + forked.stderr);
  assert.equal(error?.code, "busy");
  assert.match(error.message, /fork/);
  assert.deepEqual(differencesOf(readFolder(target), readFolder(folder)), []);
  cairnOk(["verify", "--all", "-C", target]);
  cairnOk(["init", other]);
});

test("a save names the process that holds the workspace, and succeeds at once if that process dies", async () => {
  const folder = newFolder();
  fs.writeFileSync(path.join(folder, "f"), "x");
  const client = await clientOf(folder);
  await client.save();
  fs.writeFileSync(path.join(folder, "f"), "y");
  const pause = pauseFile();
  const holder = startCairn(["save", folder], { failpoint: `save.staged@${pause}` });
  await holder.paused;
  const refused = cairn(["save", folder, "--lock-timeout", "300ms"]);
  assert.equal(refused.status, 5, refused.stdout);
  assert.equal(refused.error?.code, "busy");
  assert.equal(refused.error.retryable, true);
  assert.match(refused.error.message, new RegExp(`${holder.child.pid}`));
  // Looking needs no lock.
  assert.equal(cairnOk(["status", folder]).data["clean"], false);
  assert.equal((cairnOk(["history", folder]).data["save_points"] as unknown[]).length, 1);
  holder.child.kill("SIGKILL");
  assert.equal((await holder.ended).killed, true);
  const started = performance.now();
  const done = cairnOk(["save", folder, "--lock-timeout", "5s"]);
  assert.ok(performance.now() - started < 30_000);
  assert.equal((done.data["save_point"] as Point).sequence, 2);
  fs.rmSync(pause);
});

async function run(
  program: string,
  args: readonly string[],
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
}
