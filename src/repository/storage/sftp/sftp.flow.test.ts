import { sizesOf } from "../testing-sizes.ts";
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { CairnError } from "../../../errors.ts";
import { loopFileSystem } from "../../../../test/fixtures/loop-file-system.ts";
import { sshServer, startSshServer, type SshServer } from "../../../../test/fixtures/ssh-server.ts";
import { CallStorage } from "../call-storage.ts";
import type { Pace } from "../limited.ts";
import { RetryingStorage } from "../retrying.ts";
import { SftpSession } from "./session.ts";
import type { Connect } from "./pool.ts";
import { openSftpStorage, SftpStorage } from "./sftp.ts";
import { assertLayout, storageContract } from "../storage.contract.ts";

const BARE = ["-P", "posix-rename,fsync,statvfs,hardlink,limits"];
const shared = await startSshServer();
const bare = await startSshServer({ sftpArguments: BARE });
after(async () => {
  for (const server of [shared, bare]) if (!("reason" in server)) await server.close();
});

for (const [label, server] of [
  ["sftp, OpenSSH's server", shared],
  ["sftp, a server without extensions", bare],
] as const) {
  if ("reason" in server) test(`storage contract: ${label}`, (t) => t.skip(server.reason));
  else storageContract(label, (folder) => openIn(server, folder));
}

/** In a folder of this machine, which is the server's too. */
function openIn(
  server: SshServer,
  folder: string,
  options: { create?: boolean; pace?: Pace } = {},
): Promise<SftpStorage> {
  const rest = `//${server.user}@127.0.0.1:${server.port}/${join(folder, "repo")}`;
  return openSftpStorage(rest, { create: true, env: server.env, ...options });
}

interface Made {
  readonly server: SshServer;
  /** The repository's folder. */
  readonly root: string;
  readonly storage: SftpStorage;
}

/** A storage in a folder of its own on the shared server. */
async function make(t: TestContext, options: { pace?: Pace; server?: typeof shared } = {}): Promise<Made | null> {
  const server = options.server ?? shared;
  if ("reason" in server) {
    t.skip(server.reason);
    return null;
  }
  const folder = mkdtempSync(join(tmpdir(), "cairn-sftp-"));
  const storage = await openIn(server, folder, options.pace === undefined ? {} : { pace: options.pace });
  t.after(async () => {
    await storage.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { server, root: join(folder, "repo"), storage };
}

function named(size: number): { name: string; bytes: Buffer } {
  const bytes = randomBytes(size);
  return { bytes, name: createHash("sha256").update(bytes).digest("hex") };
}

function coded(code: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CairnError, String(error));
    assert.equal(error.code, code, `${error.message} ${String(error.cause)}`);
    return true;
  };
}

/** Does something before the nth piece that goes up or down. */
function atPiece(nth: number, act: () => void): Pace {
  let pieces = 0;
  const piece = async (): Promise<void> => {
    if (++pieces === nth) act();
  };
  return { upload: piece, download: piece };
}

/** Everything below the repository that is no folder, by its path in it. */
function filesIn(root: string): string[] {
  return readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) =>
    lstatSync(join(root, name)).isFile(),
  );
}

test("sftp storage writes restic's layout with private modes, and leaves no temporary file", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { root, storage } = made;
  await assertLayout(storage, root);
  await openIn(made.server, join(root, ".."));
});

test("sftp storage transfers several large files at once over at most 3 more connections", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { server, storage } = made;
  const before = server.connections();
  const files = [3 << 20, (2 << 20) + 1, 131_072, 131_073, 1, 0].map((size) => named(size));
  await Promise.all(files.map(({ name, bytes }) => storage.save("data", name, bytes, { durable: false })));
  const after = server.connections();
  assert.ok(after > before && after <= before + 3, `${before} connections, then ${after}`);
  await Promise.all(
    files.map(async ({ name, bytes }) => {
      assert.ok(bytes.equals(await storage.load("data", name)), `${bytes.length} bytes`);
      const offset = bytes.length >> 2;
      const range = { offset, length: bytes.length >> 1 };
      assert.ok(bytes.subarray(offset, offset + range.length).equals(await storage.load("data", name, range)));
    }),
  );
  await assert.rejects(storage.load("data", files[0]!.name, { offset: 0, length: 1e15 }), coded("damaged"));
  await assert.rejects(storage.load("data", files[0]!.name, { offset: -1, length: 1 }), coded("damaged"));
  await storage.sync(["data"]);
});

test("sftp storage runs many calls over one connection if the server refuses a second", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  const storage = await openSftpStorage(server.location("repo"), { create: true, env: server.env });
  t.after(() => storage.close());
  // Whoever is let in stays so.
  rmSync(join(server.folder, "authorized_keys"));
  const files = Array.from({ length: 20 }, (_, i) => named(50_000 + i));
  await Promise.all(files.map(({ name, bytes }) => storage.save("data", name, bytes)));
  const loaded = await Promise.all(files.map(({ name }) => storage.load("data", name)));
  assert.ok(loaded.every((bytes, i) => files[i]!.bytes.equals(bytes)));
});

test("sftp storage replaces a damaged file, also on a server without atomic renames", async (t) => {
  for (const server of [shared, bare]) {
    const made = await make(t, { server });
    if (made === null) return;
    const { root, storage } = made;
    const { name, bytes } = named(300_000);
    await storage.save("data", name, bytes);
    const path = join(root, "data", name.slice(0, 2), name);
    for (const wrong of [bytes.subarray(0, 1000), Buffer.from(bytes).fill(7, 200_000, 200_001)]) {
      chmodSync(path, 0o600);
      writeFileSync(path, wrong);
      await storage.save("data", name, bytes);
      assert.ok(readFileSync(path).equals(bytes));
    }
    const { ino } = statSync(path);
    await storage.save("data", name, bytes);
    assert.equal(
      statSync(path).ino === ino,
      server === bare,
      "what is right stays where it cannot be replaced at once",
    );
    assert.deepEqual(filesIn(root), [`data/${name.slice(0, 2)}/${name}`]);
  }
});

test("saving a config throws already_exists if another process writes a config at the same time", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const config = join(made.root, "config");
  const { rename } = SftpSession.prototype;
  // The other one comes after we have looked.
  t.mock.method(SftpSession.prototype, "rename", function (this: SftpSession, from: string, to: string) {
    writeFileSync(config, "theirs");
    return rename.call(this, from, to);
  });
  await assert.rejects(made.storage.save("config", "config", Buffer.from("ours")), coded("already_exists"));
  assert.equal(readFileSync(config, "utf8"), "theirs");
  await assert.rejects(made.storage.save("config", "config", Buffer.from("ours")), coded("already_exists"));
  assert.deepEqual(filesIn(made.root), ["config"]);
});

test("sftp storage throws io if the connection breaks during a save, and does not list the file", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const pace = atPiece(40, () => made.server.dropConnections());
  const storage = await openIn(made.server, join(made.root, ".."), { pace });
  const { name, bytes } = named(16 << 20);
  await assert.rejects(storage.save("data", name, bytes), coded("io"));
  assert.equal(await storage.exists("data", name), false);
  assert.deepEqual(await storage.list("data"), []);
  assert.equal(filesIn(made.root).length, 1, "the unfinished file");
  await storage.save("data", name, bytes);
  assert.ok(bytes.equals(await storage.load("data", name)));
  await storage.close();
});

test("retried saves and loads of sftp storage succeed although the connection breaks", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { name, bytes } = named(8 << 20);
  for (const nth of [1, 30, 64]) {
    const cut = (): void => made.server.dropConnections();
    const [up, down] = [atPiece(nth, cut), atPiece(nth, cut)];
    const inner = await openIn(made.server, join(made.root, ".."), {
      pace: { upload: up.upload, download: down.download },
    });
    t.after(() => inner.close());
    const failures: string[] = [];
    let clock = 0;
    const retrying = new RetryingStorage(inner, {
      // The same problem is told once in each pause, so pauses take their time.
      now: () => clock,
      sleep: async (ms) => {
        clock += ms;
      },
    });
    const storage = new CallStorage(retrying, {
      onRetry: ({ operation, error }) => failures.push(`${operation} ${error.code}`),
    });
    await storage.save("data", name, bytes);
    assert.deepEqual(failures, ["save io"]);
    assert.ok(bytes.equals(await storage.load("data", name)));
    // After the last piece has come nobody needs the connection any more.
    assert.deepEqual(failures.slice(1), nth === 64 ? [] : ["load io"]);
  }
});

test("a caller of sftp storage can remove its lock after it has aborted a transfer", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const stop = new AbortController();
  const pace = atPiece(20, () => stop.abort());
  const inner = await openIn(made.server, join(made.root, ".."), { pace });
  t.after(() => inner.close());
  const storage = new CallStorage(inner, { signal: stop.signal });
  const lock = named(10);
  await storage.save("locks", lock.name, lock.bytes);
  const { name, bytes } = named(16 << 20);
  await assert.rejects(storage.save("data", name, bytes), coded("interrupted"));
  await storage.remove("locks", lock.name);
  assert.deepEqual(await storage.list("locks"), []);
  assert.equal(await storage.exists("data", name), false);
});

test("an abort does not end the writing of a key", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const stop = new AbortController();
  const pace = atPiece(1, () => stop.abort());
  const inner = await openIn(made.server, join(made.root, ".."), { pace });
  t.after(() => inner.close());
  const storage = new CallStorage(inner, { signal: stop.signal });
  const key = named(100);
  await storage.save("keys", key.name, key.bytes);
  assert.ok(stop.signal.aborted);
  assert.deepEqual(sizesOf(await storage.list("keys")), [{ name: key.name, size: 100 }]);
});

test("sftp storage connects again after the server was restarted", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  const storage = await openSftpStorage(server.location("repo"), { create: true, env: server.env });
  const { name, bytes } = named(100);
  await storage.save("data", name, bytes);
  await server.stop();
  await assert.rejects(storage.load("data", name), coded("io"));
  await assert.rejects(storage.save("data", name, bytes), coded("io"));
  await server.start();
  assert.ok(bytes.equals(await storage.load("data", name)));
  await storage.close();
  assert.ok(bytes.equals(await storage.load("data", name)), "closing is no end either");
  await storage.close();
});

test("sftp storage throws io if the server stops answering, and connects again at the next call", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  const root = join(server.folder, "repo");
  const target = { host: "127.0.0.1", user: server.user, port: server.port, command: server.command() };
  const location = "sftp:test";
  const connect: Connect = ({ signal }) => SftpSession.open(target, { signal, silenceMs: 500 });
  const storage = await SftpStorage.create(root, { location, connect });
  t.after(() => storage.close());
  assert.deepEqual(await storage.list("data"), []);
  server.freeze(true);
  await assert.rejects(storage.list("data"), { code: "io", message: /has not answered for 1 s/ });
  server.freeze(false);
  assert.deepEqual(await storage.list("data"), [], "the next call connects again");
});

test("sftp storage throws no_space on a full disk, and leaves no file", async (t) => {
  if ("reason" in shared) return void t.skip(shared.reason);
  const disk = loopFileSystem(t, "ext4", { size: 16 << 20 });
  if (disk === null) return;
  const storage = await openIn(shared, disk.root);
  t.after(() => storage.close());
  const { name, bytes } = named(32 << 20);
  await assert.rejects(storage.save("data", name, bytes), coded("no_space"));
  assert.deepEqual(filesIn(join(disk.root, "repo")), []);
  const small = named(1000);
  await storage.save("data", small.name, small.bytes);
  await storage.close();
  // Sessions that are about to end may still have the folder open.
  disk.remount(["ro"]);
  await assert.rejects(storage.save("data", name, bytes), coded("permission"));
  await assert.rejects(storage.remove("data", small.name), coded("permission"));
  await assert.rejects(openIn(shared, join(disk.root, "another")), coded("permission"));
  assert.ok(small.bytes.equals(await storage.load("data", small.name)));
  await storage.close();
});

test("sftp storage flushes a durable file before and after the rename, and a lock before it", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const calls: string[] = [];
  for (const name of ["sync", "renameOver", "write"] as const) {
    const call = SftpSession.prototype[name] as (...args: unknown[]) => Promise<void>;
    t.mock.method(SftpSession.prototype, name, function (this: SftpSession, ...args: unknown[]) {
      calls.push(name);
      return call.apply(this, args);
    });
  }
  const { storage } = made;
  const { name, bytes } = named(10);
  await storage.save("data", name, bytes);
  assert.deepEqual(calls, ["write", "sync", "renameOver", "sync"]);
  await storage.save("data", name, bytes, { durable: false });
  assert.deepEqual(calls.splice(0).slice(4), ["write", "renameOver"]);
  await storage.save("locks", name, bytes, { durable: false });
  assert.deepEqual(calls, ["write", "sync", "renameOver"]);
});

for (const kind of ["ext4", "xfs", "btrfs"] as const) {
  test(`durable and synced files survive a power cut of the server on ${kind}`, async (t) => {
    if ("reason" in shared) return void t.skip(shared.reason);
    const disk = loopFileSystem(t, kind);
    if (disk === null) return;
    const storage = await openIn(shared, disk.root);
    t.after(() => storage.close());
    const [durable, synced] = [named(300_000), named(1000)];
    await storage.save("index", synced.name, synced.bytes, { durable: false });
    await storage.sync(["index"]);
    await storage.save("data", durable.name, durable.bytes);
    await storage.close();
    disk.cutPower();
    assert.ok(synced.bytes.equals(await storage.load("index", synced.name)));
    assert.ok(durable.bytes.equals(await storage.load("data", durable.name)));
    await storage.close();
  });
}

test("writing to a read-only server throws permission", async (t) => {
  const server = await sshServer(t, { sftpArguments: ["-R"] });
  if (server === null) return;
  const rest = server.location("repo");
  await assert.rejects(openSftpStorage(rest, { create: true, env: server.env }), coded("permission"));
  const root = join(server.folder, "repo");
  for (const kind of ["data", "index"]) mkdirSync(join(root, kind), { recursive: true });
  const storage = await openSftpStorage(rest, { env: server.env });
  t.after(() => storage.close());
  const { name, bytes } = named(10);
  await assert.rejects(storage.save("index", name, bytes), coded("permission"));
  writeFileSync(join(root, "index", name), bytes);
  await assert.rejects(storage.remove("index", name), coded("permission"));
  assert.deepEqual(sizesOf(await storage.list("index")), [{ name, size: 10 }]);
});

test("a user who may not remove files releases locks by renaming them to one file", async (t) => {
  const server = await sshServer(t, { sftpArguments: ["-P", "remove"] });
  if (server === null) return;
  const storage = await openSftpStorage(server.location("repo"), { create: true, env: server.env });
  t.after(() => storage.close());
  for (let i = 0; i < 3; i++) {
    const { name, bytes } = named(100);
    await storage.save("locks", name, bytes);
    await storage.remove("locks", name);
  }
  assert.deepEqual(await storage.list("locks"), []);
  assert.deepEqual(readdirSync(join(server.folder, "repo/locks")), ["released"]);
  const { name, bytes } = named(10);
  await storage.save("index", name, bytes);
  await assert.rejects(storage.remove("index", name), coded("permission"));
});

test("creating a repository at or below a file throws already_exists", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  writeFileSync(join(server.folder, "file"), "");
  for (const name of ["file", "file/repo"])
    await assert.rejects(
      openSftpStorage(server.location(name), { create: true, env: server.env }),
      (error: CairnError) => {
        assert.match(error.message, /\/file exists and is not a folder/);
        return coded("already_exists")(error);
      },
    );
});

test("sync of sftp storage throws damaged if the server has lost a saved file", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { root, storage } = made;
  for (const spoil of [rmSync, (path: string) => truncateSync(path, 3)]) {
    const { name, bytes } = named(10);
    await storage.save("index", name, bytes, { durable: false });
    spoil(join(root, "index", name));
    await assert.rejects(storage.sync(["data", "index"]), coded("damaged"));
    if (existsSync(join(root, "index", name))) await storage.remove("index", name);
    else await storage.save("index", name, bytes);
  }
});

test("clearTemporaries of sftp storage removes unfinished files that are old by the server's clock", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { root, storage } = made;
  const name = "ab".repeat(32);
  const [old, young] = ["0", "1"].map((digit) => join(root, `data/ab/${name}-cairn-temp-${digit.repeat(16)}`)) as [
    string,
    string,
  ];
  const config = join(root, `config-cairn-temp-${"2".repeat(16)}`);
  for (const file of [old, young, config, join(root, "data/ab/somebody-elses")]) writeFileSync(file, "x");
  for (const file of [old, config]) utimesSync(file, 1, 1);
  assert.deepEqual(await storage.list("data"), []);
  assert.equal(await storage.clearTemporaries(3_600_000), 2);
  assert.deepEqual(readdirSync(join(root, "data/ab")).toSorted(), [basename(young), "somebody-elses"]);
  assert.deepEqual(readdirSync(root).toSorted(), ["data", "index", "keys", "locks", "snapshots"]);
});

test("list of sftp storage skips folders and dangling links, and follows links to files", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { root, storage } = made;
  const [linked, dangling, folder] = ["aa", "bb", "cc"].map((each) => each.repeat(32)) as [string, string, string];
  writeFileSync(join(root, "elsewhere"), "12345");
  symlinkSync("../elsewhere", join(root, "index", linked));
  symlinkSync("nowhere", join(root, "index", dangling));
  mkdirSync(join(root, "index", folder));
  assert.deepEqual(sizesOf(await storage.list("index")), [{ name: linked, size: 5 }]);
  mkdirSync(join(root, "data/zz"));
  writeFileSync(join(root, "data/xyz"), "");
  rmSync(join(root, "data/00"), { recursive: true });
  assert.deepEqual(await storage.list("data"), []);
  const { bytes } = named(5);
  await storage.save("data", `00${"0".repeat(62)}`, bytes);
  assert.equal((await storage.list("data")).length, 1);
});

test("a process killed at any step of an sftp save leaves the whole file or none", async (t) => {
  const made = await make(t);
  if (made === null) return;
  const { server, root, storage } = made;
  const module = new URL("sftp.ts", import.meta.url).href;
  const script = `const { openSftpStorage } = await import(${JSON.stringify(module)});
const storage = await openSftpStorage(process.argv[1]);
await storage.save("data", process.argv[2], Buffer.from(process.argv[3], "hex"));`;
  const rest = `//${server.user}@127.0.0.1:${server.port}/${root}`;
  for (const step of ["sftp.created", "sftp.written", "sftp.renamed"]) {
    const { name, bytes } = named(1000);
    const env = { PATH: process.env["PATH"], ...server.env, CAIRN_FAILPOINT: step } as Record<string, string>;
    const child = spawnSync(
      process.execPath,
      ["--input-type=module", "-e", script, rest, name, bytes.toString("hex")],
      { env, encoding: "utf8" },
    );
    assert.equal(child.signal, "SIGKILL", child.stderr);
    assert.match(child.stderr, new RegExp(`^failpoint ${step}$`, "m"));
    const there = step === "sftp.renamed";
    assert.deepEqual(sizesOf(await storage.list("data")), there ? [{ name, size: 1000 }] : []);
    if (there) assert.ok(bytes.equals(await storage.load("data", name)));
    await storage.save("data", name, bytes);
    assert.ok(bytes.equals(await storage.load("data", name)));
    await storage.remove("data", name);
  }
});
