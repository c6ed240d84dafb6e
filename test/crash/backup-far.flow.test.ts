import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { makeRepository } from "../../src/backup/testing-repository.ts";
import { TestingS3Server } from "../../src/repository/storage/s3/testing-s3-server.ts";
import { buildCommand, startCairn, type Outcome, type RunOptions } from "../fixtures/command.ts";
import { HANG_MS } from "../fixtures/eventually.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { passwordOf, repositoryPlace } from "../fixtures/repository.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";
import { oneOf } from "./rounds.ts";
import { variant } from "../fixtures/long.ts";

/** Restores from a bucket that are killed or cut off, and what the next one still has to fetch. */

const KEY = { accessKeyId: "CAIRNTESTKEY", secretAccessKey: "SecretThatMustNotBeSeen" };
const server = await TestingS3Server.start(KEY);

buildCommand();
after(() => server.stop());

interface Scene {
  folder: string;
  target: string;
  cache: string;
  restore(options?: RunOptions & { target?: string }): ReturnType<typeof startCairn>;
}

/** The server lives in this process, so nothing here may wait for a command without giving way. */
async function scene(name: string, { small = "" } = {}): Promise<Scene> {
  const folder = newFolder(name);
  fs.mkdirSync(path.join(folder, small), { recursive: true });
  makeFirst(path.join(folder, small));
  fs.writeFileSync(path.join(folder, "large"), randomBytes(40 << 20));
  for (let i = 0; i < 8; i++) {
    fs.mkdirSync(path.join(folder, `part-${i}`));
    for (let j = 0; j < 5; j++) fs.writeFileSync(path.join(folder, `part-${i}`, `${j}`), randomBytes(400_000));
  }
  const local = repositoryPlace(name);
  const repository = `s3:${server.address}/${name}`;
  const options = ["-r", repository, "--password-file", local.passwordFile];
  const cache = newFolder(`${name}-cache`);
  const env = {
    AWS_ACCESS_KEY_ID: KEY.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEY.secretAccessKey,
    XDG_CACHE_HOME: cache,
  };
  const run = (args: string[], more: RunOptions = {}): ReturnType<typeof startCairn> =>
    startCairn(["backup", args[0]!, ...options, ...args.slice(1)], { ...more, env });
  await makeRepository({ repository, password: passwordOf(local), env });
  assert.equal((await run(["create", "-C", folder]).ended).status, 0);
  const target = path.join(newFolder(`${name}-target`), "restored");
  const restore: Scene["restore"] = (more = {}) => run(["restore", "latest", "--to", more.target ?? target], more);
  return { folder, target, cache, restore };
}

/** Bytes of packs that were asked for since the last call. */
function fetched(): number {
  let bytes = 0;
  for (const { method, path: asked, headers } of server.seen.splice(0)) {
    const range = /bytes=(\d+)-(\d+)/.exec(String(headers["range"] ?? ""));
    if (method === "GET" && asked.includes("/data/") && range !== null)
      bytes += Number(range[2]) - Number(range[1]) + 1;
  }
  return bytes;
}

async function ok(running: ReturnType<typeof startCairn>): Promise<Outcome> {
  const done = await running.ended;
  assert.equal(done.status, 0, done.stdout + done.stderr);
  return done;
}

/** Packs that restores have left behind. */
function leftPacks(cache: string): string[] {
  return fs
    .readdirSync(cache, { recursive: true, encoding: "utf8" })
    .filter((name) => /\/fetched\/.*\/[0-9a-f]{64}$/.test(name))
    .map((name) => path.join(cache, name));
}

test("a restore from a remote repository reuses the packs that a killed restore had fetched", async () => {
  const at = await scene("killed");
  const wanted = readFolder(at.folder);
  server.seen.length = 0;
  await ok(at.restore());
  const whole = fetched();
  assert.ok(whole > 50 << 20, `${whole} bytes are all`);
  assert.deepEqual(leftPacks(at.cache), []);
  fs.rmSync(at.target, { recursive: true });
  for (const failpoint of ["near-packs.brought:4", "near-packs.brought:9", "restore-backup.written"]) {
    assert.ok((await at.restore({ failpoint }).ended).killed, failpoint);
    const before = fetched();
    // A second kill, while what the first has left is taken over.
    assert.ok((await at.restore({ failpoint: "fetch-area.taken:2" }).ended).killed, failpoint);
    const between = fetched();
    await ok(at.restore());
    const rest = fetched();
    assert.equal(oneOf(at.target, { wanted }, failpoint), "wanted");
    if (failpoint === "restore-backup.written")
      assert.equal(between + rest, 0, `${between} and ${rest} were fetched again`);
    assert.ok(rest < whole, `${failpoint}: ${before} had come of ${whole}, ${between} and ${rest} were fetched then`);
    assert.deepEqual(leftPacks(at.cache), [], failpoint);
    fs.rmSync(at.target, { recursive: true });
  }
});

test("a restore fetches a pack again if the copy that a killed restore left was changed", async () => {
  const at = await scene("changed");
  const wanted = readFolder(at.folder);
  assert.ok((await at.restore({ failpoint: "restore-backup.written" }).ended).killed);
  const [first, second, ...others] = leftPacks(at.cache);
  assert.ok(others.length > 0);
  const fd = fs.openSync(first!, "r+");
  fs.writeSync(fd, randomBytes(16), 0, 16, 100_000);
  fs.closeSync(fd);
  fs.truncateSync(second!, 1000);
  for (const name of fs.readdirSync(path.dirname(at.target)))
    fs.rmSync(path.join(path.dirname(at.target), name), { recursive: true });
  server.seen.length = 0;
  await ok(at.restore());
  const again = fetched();
  assert.ok(again > 0 && again < 30 << 20, `${again} bytes were fetched again`);
  assert.equal(oneOf(at.target, { wanted }, "with packs that were changed"), "wanted");
});

test(
  "a restore removes packs that a killed restore of another repository left more than a day ago",
  variant,
  async () => {
    const at = await scene("forgotten");
    assert.ok((await at.restore({ failpoint: "restore-backup.written" }).ended).killed);
    const packs = leftPacks(at.cache);
    const folders = new Set(packs.map((pack) => path.dirname(pack)));
    assert.ok(folders.size > 0);
    const other = await scene("other");
    const env = { target: path.join(newFolder("other-target"), "restored") };
    fs.rmSync(other.cache, { recursive: true });
    fs.symlinkSync(at.cache, other.cache);
    await ok(other.restore(env));
    assert.ok(leftPacks(at.cache).length > 0, "it is young");
    const old = Date.now() / 1000 - 25 * 3600;
    for (const pack of packs) fs.utimesSync(pack, old, old);
    for (const folder of folders)
      for (const each of [folder, path.dirname(folder), path.dirname(path.dirname(folder))])
        fs.utimesSync(each, old, old);
    await ok(other.restore({ target: path.join(newFolder("other-target"), "again") }));
    assert.deepEqual(leftPacks(at.cache), []);
  },
);

test("a restore fails and removes its fetched packs if the disk with the fetched packs is full", async (t) => {
  const at = await scene("full");
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=40m", "none", at.cache]);
  if (mounted.status !== 0) return t.skip("no right to mount");
  t.after(() => execFileSync("umount", [at.cache]));
  const { status, error } = await at.restore().ended;
  assert.deepEqual([status, error?.code], [8, "no_space"]);
  assert.match(error!.message, / are needed, and Cairn keeps .* free for other programs$/);
  assert.match(error!.hint!, /set XDG_CACHE_HOME to another place for fetched packs/);
  execFileSync("mount", ["-o", "remount,size=100m", at.cache]);
  const hold = path.join(newFolder("hold"), "held");
  fs.writeFileSync(hold, "");
  const running = at.restore({ failpoint: `near-packs.brought:3@${hold}` });
  await running.paused;
  const room = fs.statfsSync(at.cache);
  fs.writeFileSync(path.join(at.cache, "filling"), Buffer.alloc(room.bavail * room.bsize - (6 << 20)));
  fs.rmSync(hold);
  const full = await running.ended;
  assert.deepEqual([full.status, full.error?.code], [8, "no_space"]);
  assert.deepEqual(leftPacks(at.cache), []);
  assert.deepEqual(fs.readdirSync(path.dirname(at.target)), []);
});

/** Lets no part of a pack through until it is told to. */
function holdBack(path: string): () => void {
  const released = Promise.withResolvers<void>();
  server.faults.push((request, answer) => {
    const range = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "");
    if (request.path !== path || range === null) return false;
    const [from, to] = [Number(range[1]), Number(range[2])];
    const pack = server.objects.get(path.replace(/^\/[^/]+\//, ""))!;
    void released.promise.then(() => {
      answer.writeHead(206, { "content-range": `bytes ${from}-${to}/${pack.length}` });
      answer.end(pack.subarray(from, to + 1));
    });
    return true;
  });
  return released.resolve;
}

/** Whether a file, but for the one that is made before its content has come, comes to lie below a folder within that time. */
async function gets(folder: string, ms: number): Promise<boolean> {
  for (const until = Date.now() + ms; Date.now() < until;) {
    await sleep(20);
    const names = fs.readdirSync(folder, { recursive: true, encoding: "utf8" });
    const files = names.filter((name) => fs.lstatSync(path.join(folder, name), { throwIfNoEntry: false })?.isFile());
    if (files.some((name) => path.basename(name) !== "large")) return true;
  }
  return false;
}

test("a restore writes files while a pack that other files need has not arrived", async () => {
  const at = await scene("overlap", { small: "small" });
  const wanted = readFolder(at.folder);
  server.seen.length = 0;
  await ok(at.restore());
  const asked = server.seen.filter(({ method, path: of }) => method === "GET" && of.includes("/data/"));
  let isWritten = false;
  // A pack may hold something of each folder; where no other has shown it, the machine is slow and each gets more time.
  const packs = [...new Set(asked.toReversed().map(({ path: of }) => of))];
  for (const [pack, ms] of [5000, HANG_MS].flatMap((ms) => packs.map((each) => [each, ms] as const))) {
    fs.rmSync(at.target, { recursive: true });
    const release = holdBack(pack);
    const running = at.restore();
    isWritten = await gets(path.dirname(at.target), ms);
    release();
    await ok(running);
    server.faults.length = 0;
    assert.equal(oneOf(at.target, { wanted }, "after a pack that came late"), "wanted");
    if (isWritten) break;
  }
  assert.ok(isWritten);
});
