import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { eventually } from "../../../test/fixtures/eventually.ts";
import { sshServer, type SshServer } from "../../../test/fixtures/ssh-server.ts";
import type { Pace } from "./limited.ts";
import { openSftpStorage, sftpTarget } from "./sftp-open.ts";
import type { SftpStorage } from "./sftp.ts";
import { SshConnection } from "./ssh-connection.ts";

/** Callers of one storage that stop, each for itself, and what stays of their connections. */

interface Made {
  readonly server: SshServer;
  readonly storage: SftpStorage;
  /** Before and after this many pieces. */
  readonly atPiece: Map<number, () => void>;
}

async function make(t: TestContext): Promise<Made | null> {
  const server = await sshServer(t);
  if (server === null) return null;
  const atPiece = new Map<number, () => void>();
  let pieces = 0;
  const count = async (): Promise<void> => atPiece.get(++pieces)?.();
  const pace: Pace = { upload: count, download: count };
  const storage = await openSftpStorage(server.location("repo"), { create: true, env: server.env, pace });
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

test("one of two callers that stops ends alone, and the other's transfer goes on in the same connection", async (t) => {
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
  assert.ok(server.connections() <= before + 1, "a further channel at most");
  assert.equal(await storage.exists("data", mine.name), false);
  const folder = join(server.folder, "repo/data", mine.name.slice(0, 2));
  assert.deepEqual(readdirSync(folder), [], "its unfinished file is gone");
});

test("what waits for a silent server ends when all who wait have stopped, and what decides is waited for", async (t) => {
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

test("a storage that is closed while it connects is so at once", async (t) => {
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

test("a connection that is made for a call after closing ends with that", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { server, storage } = made;
  await storage.close();
  await eventually("the connection is gone", () => server.connections() === 0);
  assert.deepEqual(await storage.list("locks"), []);
  await eventually("the later one is gone", () => server.connections() === 0);
});

test("connecting ends when it is stopped before anything is sent", async (t) => {
  const { port } = await silentServer(t);
  const server = await sshServer(t);
  if (server === null) return;
  const target = sftpTarget(`//me@127.0.0.1:${port}/x`, server.env);
  const stop = new AbortController();
  const opening = SshConnection.open(target, stop.signal);
  stop.abort();
  await assert.rejects(opening, { code: "interrupted" });
  await assert.rejects(SshConnection.open(target, stop.signal), { code: "interrupted" });
});

test("a repository whose folders cannot be made leaves no connection", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  writeFileSync(join(server.folder, "a-file"), "");
  const { signal } = new AbortController();
  const create = openSftpStorage(server.location("a-file/repo"), { create: true, env: server.env, signal });
  await assert.rejects(create, /cannot make the repository's folders/);
  await eventually("the connection is gone", () => server.connections() === 0);
});

test("a command between that is cut leaves no open files", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  const folder = mkdtempSync(join(tmpdir(), "cairn-command-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const config = join(folder, "config");
  // What goes on behind it holds the ends of its pipes.
  const command = `sh -c 'sleep 5 & exec sleep 60'`;
  writeFileSync(config, `Host behind\n  HostName 127.0.0.1\n  ProxyCommand ${command}\n`);
  const env = { ...server.env, CAIRN_SFTP_CONFIG: config };
  const storage = await openSftpStorage("//behind/x", { env });
  t.after(() => storage.close());
  const files = (): number => readdirSync("/proc/self/fd").length;
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
});

test("the end of a command between is told although something that it started goes on", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  const config = join(server.folder, "config-of-command");
  const command = `sh -c 'sleep 60 >/dev/null & echo no way >&2; exit 1'`;
  writeFileSync(config, `Host behind\n  HostName 127.0.0.1\n  ProxyCommand ${command}\n`);
  const begun = performance.now();
  const open = SshConnection.open(sftpTarget("behind:x", { ...server.env, CAIRN_SFTP_CONFIG: config }));
  await assert.rejects(open, { code: "io", message: /no way/ });
  assert.ok(performance.now() - begun < 20_000);
});

test("a lock waits for no limit that packs are under", async (t) => {
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
