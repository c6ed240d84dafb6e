import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { eventually } from "../../../../test/fixtures/eventually.ts";
import { sshServer, type SshServer } from "../../../../test/fixtures/ssh-server.ts";
import type { Pace } from "../limited.ts";
import { SftpSession } from "./session.ts";
import { openSftpStorage, SftpStorage } from "./sftp.ts";

/** Callers of one storage that stop, each for itself, and what stays of their sessions. */

interface Made {
  readonly server: SshServer;
  readonly storage: SftpStorage;
  /** Before and after this many pieces. */
  readonly atPiece: Map<number, () => void>;
}

/** All its calls go over one session. */
async function make(t: TestContext): Promise<Made | null> {
  const server = await sshServer(t);
  if (server === null) return null;
  const atPiece = new Map<number, () => void>();
  let pieces = 0;
  const count = async (): Promise<void> => atPiece.get(++pieces)?.();
  const pace: Pace = { upload: count, download: count };
  const target = { host: "127.0.0.1", user: server.user, port: server.port, command: server.command() };
  const storage = await SftpStorage.create(join(server.folder, "repo"), {
    location: "sftp:test",
    connect: ({ signal }) => SftpSession.open(target, { signal }),
    sessions: 1,
    pace,
  });
  t.after(() => storage.close());
  return { server, storage, atPiece };
}

function named(size: number): { name: string; bytes: Buffer } {
  const bytes = randomBytes(size);
  return { name: createHash("sha256").update(bytes).digest("hex"), bytes };
}

/** A server that takes connections and says nothing; `come`: one was made. */
async function silentServer(t: TestContext): Promise<{ port: number; come: Promise<void> }> {
  const { promise: come, resolve } = Promise.withResolvers<void>();
  const server = createServer(() => resolve());
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  t.after(() => server.close());
  return { port: (server.address() as AddressInfo).port, come };
}

/** What waits for nobody else has happened then. */
async function turns(): Promise<void> {
  for (let i = 0; i < 50; i++) await setImmediate();
}

test("an abort ends only its caller's transfer, and another caller's transfer continues in the same connection", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { server, storage, atPiece } = made;
  const { name, bytes } = named(16 << 20);
  await storage.save("data", name, bytes);
  const before = server.connections();
  const stop = new AbortController();
  const mine = named(16 << 20);
  atPiece.set(128 + 40, () => stop.abort());
  const [stopped, going] = await Promise.allSettled([
    storage.save("data", mine.name, mine.bytes, { signal: stop.signal }),
    storage.load("data", name, undefined, { signal: new AbortController().signal }),
  ]);
  assert.ok(stop.signal.aborted);
  assert.equal(stopped.status === "rejected" && stopped.reason.code, "interrupted");
  assert.ok(going.status === "fulfilled" && bytes.equals(going.value));
  assert.equal(server.connections(), before);
  assert.equal(await storage.exists("data", mine.name), false);
  const folder = join(server.folder, "repo/data", mine.name.slice(0, 2));
  // Both names may begin with the same two digits.
  const left = readdirSync(folder).filter((each) => each !== name);
  assert.deepEqual(left, [], "its unfinished file is gone");
});

test("an abort ends calls to a silent server, unless a commit still waits in the same connection", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { server, storage } = made;
  assert.deepEqual(await storage.list("data"), []);
  server.freeze(true);
  const [one, other] = [new AbortController(), new AbortController()];
  const lists = [one, other].map(async ({ signal }) => storage.list("index", { signal }));
  const key = named(100);
  const saved = storage.save("keys", key.name, key.bytes, { signal: one.signal });
  let ended = 0;
  for (const each of lists) each.catch(() => ended++);
  // All is sent.
  await turns();
  one.abort();
  other.abort();
  await turns();
  assert.equal(ended, 0);
  server.freeze(false);
  await saved;
  for (const each of lists) await assert.rejects(each, { code: "interrupted" });
  server.freeze(true);
  const last = new AbortController();
  const listing = storage.list("index", { signal: last.signal });
  await turns();
  last.abort();
  await assert.rejects(listing, { code: "interrupted" });
  server.freeze(false);
});

test("closing an sftp storage ends connecting at once", async (t) => {
  const { port, come } = await silentServer(t);
  const server = await sshServer(t);
  if (server === null) return;
  const storage = await openSftpStorage(`//me@127.0.0.1:${port}/x`, { env: server.env });
  const listing = storage.list("data");
  listing.catch(() => undefined);
  await come;
  await storage.close();
  await assert.rejects(listing, { code: "interrupted" });
});

test("a call on a closed sftp storage closes its connection when it ends", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { server, storage } = made;
  await storage.close();
  await eventually("the connection is gone", () => server.connections() === 0);
  assert.deepEqual(await storage.list("locks"), []);
  await eventually("the later one is gone", () => server.connections() === 0);
});

test("an abort ends connecting before the server answers", async (t) => {
  const { port } = await silentServer(t);
  const target = { host: "127.0.0.1", user: "me", port };
  const stop = new AbortController();
  const opening = SftpSession.open(target, { signal: stop.signal });
  stop.abort();
  await assert.rejects(opening, { code: "interrupted" });
  await assert.rejects(SftpSession.open(target, { signal: stop.signal }), { code: "interrupted" });
});

test("openSftpStorage leaves no connection if it cannot create the repository's folders", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  writeFileSync(join(server.folder, "a-file"), "");
  const { signal } = new AbortController();
  const create = openSftpStorage(server.location("a-file/repo"), { create: true, env: server.env, signal });
  await assert.rejects(create, /cannot make the repository's folders/);
  await eventually("the connection is gone", () => server.connections() === 0);
});

test("an aborted ssh leaves no process and no open files, even if it has started children", async (t) => {
  // What goes on behind it holds the ends of its pipes.
  const CAIRN_SSH_COMMAND = `sh -c 'sleep 5 & exec sleep 60'`;
  const storage = await openSftpStorage("//behind/x", { env: { ...process.env, CAIRN_SSH_COMMAND } });
  t.after(() => storage.close());
  const files = (): number => readdirSync("/proc/self/fd").length;
  const children = (): string => readFileSync(`/proc/self/task/${process.pid}/children`, "utf8");
  const stopped = async (): Promise<void> => {
    const stop = new AbortController();
    const listing = storage.list("data", { signal: stop.signal });
    setTimeout(() => stop.abort(), 100);
    await assert.rejects(listing, { code: "interrupted" });
  };
  await stopped();
  const before = files();
  for (let i = 0; i < 3; i++) await stopped();
  await eventually("descriptors are closed", () => files() <= before);
  await eventually("no process is left, nor a zombie", () => children() === "");
});

test("SftpSession.open throws io when ssh ends, even if a child process of ssh keeps running", async () => {
  const command = `sh -c 'sleep 60 >/dev/null & echo no way >&2; exit 255'`;
  const begun = performance.now();
  const opening = SftpSession.open({ host: "behind", user: undefined, port: undefined, command });
  await assert.rejects(opening, { code: "io", message: /no way/ });
  assert.ok(performance.now() - begun < 20_000);
});

test("sftp storage saves and loads locks without the rate limit for packs", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { storage, atPiece } = made;
  const waited: number[] = [];
  for (let nth = 1; nth < 10; nth++) atPiece.set(nth, () => waited.push(nth));
  const { name, bytes } = named(200);
  await storage.save("locks", name, bytes);
  assert.deepEqual(await storage.load("locks", name), bytes);
  assert.deepEqual(waited, []);
  await storage.save("data", name, bytes);
  assert.deepEqual(waited, [1]);
});
