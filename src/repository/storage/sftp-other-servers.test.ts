import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import ssh2, { type AuthContext, type Client, type Connection, type FileEntry, type SFTPWrapper } from "ssh2";
import { CairnError } from "../../errors.ts";
import { SftpStorage } from "./sftp.ts";
import { SshConnection, type SshTarget } from "./ssh-connection.ts";
import { KnownHosts } from "./ssh-known-hosts.ts";

/** Servers that are not OpenSSH's: poor ones, and ones that lie. */

const { OPEN_MODE, STATUS_CODE } = ssh2.utils.sftp;
const NAME = "ab".repeat(32);

interface Manners {
  /** Decides who is let in. */
  letIn?: (attempt: AuthContext) => void;
  /** Most bytes that one read gives. */
  readSize?: number;
  /** What is said of a file's size. */
  size?: (real: number) => number;
  /** Gives names to who opens a file. */
  nonsense?: boolean;
  /** Never answers who wants to reach another host through it. */
  forwardsNever?: boolean;
}

/** ssh2 writes one in 256 of its ed25519 keys so that it cannot read it itself. */
function hostKey(): ReturnType<typeof ssh2.utils.generateKeyPairSync> {
  for (;;) {
    const pair = ssh2.utils.generateKeyPairSync("ed25519");
    if (!(ssh2.utils.parseKey(pair.private) instanceof Error)) return pair;
  }
}

/** A server in this process that keeps files in memory, in folders that are always there. */
async function serve(t: TestContext, manners: Manners): Promise<{ target: SshTarget; files: Map<string, Buffer> }> {
  const files = new Map<string, Buffer>();
  const host = hostKey();
  const server = new ssh2.Server({ hostKeys: [host.private] }, (client: Connection) => {
    client.on("error", () => undefined);
    (client as unknown as Client).setNoDelay(true);
    client.on("authentication", (attempt) => (manners.letIn === undefined ? attempt.accept() : manners.letIn(attempt)));
    if (manners.forwardsNever === true) client.on("tcpip", () => undefined);
    client.on("session", (accept) => accept().on("sftp", (acceptSftp) => answer(acceptSftp(), files, manners)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const credentials = {
    identityFiles: [],
    defaultFiles: [],
    agent: null,
    identitiesOnly: false,
    password: "the password",
  };
  return {
    files,
    target: {
      host: "127.0.0.1",
      port,
      user: "me",
      knownAs: "server",
      knownHostsFiles: [knownHostsFile(t, host.public)],
      credentials,
    },
  };
}

function answer(sftp: SFTPWrapper, files: Map<string, Buffer>, manners: Manners): void {
  const listed = new Set<string>();
  const pathOf = (handle: Buffer): string => handle.toString().slice(1);
  const status = (id: number, isWell: boolean): void =>
    sftp.status(id, isWell ? STATUS_CODE.OK : STATUS_CODE.NO_SUCH_FILE);
  const attributes = (path: string): { size: number; mode: number } => ({
    size: manners.size?.(files.get(path)!.length) ?? files.get(path)!.length,
    mode: 0o100_600,
  });
  sftp.on("OPEN", (id, path, flags) => {
    if (manners.nonsense === true) return sftp.name(id, []);
    if ((flags & OPEN_MODE.CREAT) !== 0) files.set(path, Buffer.alloc(0));
    if (files.has(path)) sftp.handle(id, Buffer.from(`f${path}`));
    else status(id, false);
  });
  sftp.on("WRITE", (id, handle, offset, data) => {
    const before = files.get(pathOf(handle))!;
    const after = Buffer.alloc(Math.max(before.length, offset + data.length));
    before.copy(after);
    data.copy(after, offset);
    files.set(pathOf(handle), after);
    status(id, true);
  });
  sftp.on("READ", (id, handle, offset, length) => {
    const part = files.get(pathOf(handle))!.subarray(offset, offset + Math.min(length, manners.readSize ?? length));
    if (part.length === 0) sftp.status(id, STATUS_CODE.EOF);
    else sftp.data(id, part);
  });
  sftp.on("FSTAT", (id, handle) => sftp.attrs(id, attributes(pathOf(handle)) as never));
  sftp.on("STAT", (id, path) => (files.has(path) ? sftp.attrs(id, attributes(path) as never) : status(id, false)));
  sftp.on("RENAME", (id, from, to) => {
    const isWell = files.has(from) && !files.has(to);
    if (isWell) files.set(to, files.get(from)!);
    if (isWell) files.delete(from);
    sftp.status(id, isWell ? STATUS_CODE.OK : STATUS_CODE.FAILURE);
  });
  sftp.on("REMOVE", (id, path) => status(id, files.delete(path)));
  sftp.on("OPENDIR", (id, path) => sftp.handle(id, Buffer.from(`d${path}`)));
  sftp.on("READDIR", (id, handle) => {
    const folder = `${pathOf(handle)}/`;
    if (listed.delete(folder)) return sftp.status(id, STATUS_CODE.EOF);
    listed.add(folder);
    const names = [...files.keys()].filter((path) => path.startsWith(folder)).map((path) => path.slice(folder.length));
    // Without a word about what they are.
    sftp.name(id, names.map((filename) => ({ filename, longname: filename, attrs: {} })) as FileEntry[]);
  });
  sftp.on("CLOSE", (id) => status(id, true));
}

function knownHostsFile(t: TestContext, publicKey: string): string {
  const line = `server ${publicKey}\n`;
  const read = t.mock.method(KnownHosts, "read", () => KnownHosts.parse(line));
  t.after(() => read.mock.restore());
  return "known_hosts of the test";
}

function coded(code: string, words = /./): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code && words.test(error.message);
}

function storageAt(t: TestContext, target: SshTarget): SftpStorage {
  const storage = new SftpStorage("repo", { location: "sftp:test", connect: () => SshConnection.open(target) });
  t.after(() => storage.close());
  return storage;
}

test("a server without extensions that reads in small pieces and describes nothing serves all the same", async (t) => {
  const { target, files } = await serve(t, { readSize: 1000 });
  const storage = storageAt(t, target);
  const bytes = randomBytes(150_000);
  await storage.save("index", NAME, bytes);
  await storage.save("index", NAME, bytes);
  assert.deepEqual([...files.keys()], [`repo/index/${NAME}`]);
  assert.deepEqual(await storage.list("index"), [{ name: NAME, size: bytes.length }]);
  assert.ok(bytes.equals(await storage.load("index", NAME)));
  assert.ok(bytes.subarray(7, 140_007).equals(await storage.load("index", NAME, { offset: 7, length: 140_000 })));
  await assert.rejects(storage.load("index", NAME, { offset: 149_999, length: 2 }), coded("damaged"));
  await storage.sync(["index"]);
  await storage.save("config", "config", Buffer.from("one"));
  await assert.rejects(storage.save("config", "config", Buffer.from("two")), coded("already_exists"));
  await storage.remove("index", NAME);
  assert.deepEqual([...files.keys()], ["repo/config"]);
});

test("a file that is said to be larger than it is, or than any, is damaged and takes no memory", async (t) => {
  for (const size of [1 << 20, 1 << 30, 2 ** 40, 2 ** 52]) {
    const { target, files } = await serve(t, { size: () => size });
    const storage = storageAt(t, target);
    files.set(`repo/index/${NAME}`, Buffer.alloc(200_000));
    const before = process.memoryUsage().arrayBuffers;
    await assert.rejects(storage.load("index", NAME), coded("damaged"));
    assert.ok(process.memoryUsage().arrayBuffers < before + (80 << 20));
  }
});

test("a file that is larger than what is made room for at once comes whole", async (t) => {
  const { target, files } = await serve(t, {});
  const bytes = Buffer.alloc(65 << 20, "not the same everywhere ");
  bytes.fill("the end", bytes.length - (2 << 20));
  files.set(`repo/index/${NAME}`, bytes);
  assert.ok(bytes.equals(await storageAt(t, target).load("index", NAME)));
});

test("an answer of another kind than asked for ends the connection", async (t) => {
  const { target, files } = await serve(t, { nonsense: true });
  files.set(`repo/index/${NAME}`, Buffer.alloc(200_000));
  await assert.rejects(storageAt(t, target).load("index", NAME), coded("io", /not one to what was asked/));
});

test("a password is shown only when it was given, and to a question that hides what is typed", async (t) => {
  const asked: string[] = [];
  const byPassword = await serve(t, {
    letIn: (attempt) => {
      asked.push(attempt.method);
      if (attempt.method === "password" && attempt.password === "the password") attempt.accept();
      else attempt.reject(["password"]);
    },
  });
  (await SshConnection.open(byPassword.target)).close();
  assert.deepEqual(asked, ["password"]);
  const without = { ...byPassword.target, credentials: { ...byPassword.target.credentials, password: undefined } };
  await assert.rejects(SshConnection.open(without), coded("permission"));
  assert.deepEqual(asked, ["password"]);
  const answers: string[][] = [];
  const byQuestion = await serve(t, {
    letIn: (attempt) => {
      if (attempt.method !== "keyboard-interactive") return attempt.reject(["keyboard-interactive"]);
      attempt.prompt(
        [
          { prompt: "Password: ", echo: false },
          { prompt: "Your name: ", echo: true },
        ],
        (said) => {
          answers.push(said);
          attempt.accept();
        },
      );
    },
  });
  (await SshConnection.open(byQuestion.target)).close();
  assert.deepEqual(answers, [["the password", ""]]);
});

test("connecting through a host that never answers ends when the caller stops, when it is closed, and in time", async (t) => {
  const { target: jump } = await serve(t, { forwardsNever: true });
  const behind = { ...jump, via: jump };
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 300);
  await assert.rejects(SshConnection.open(behind, stop.signal), coded("interrupted"));
  const impatient = SshConnection.open({ ...behind, connectTimeoutMs: 300 });
  await assert.rejects(impatient, coded("io", /no answer from there within 0 s/));
  const storage = new SftpStorage("repo", {
    location: "sftp:test",
    connect: (signal) => SshConnection.open(behind, signal),
  });
  const listing = storage.list("data");
  setTimeout(() => void storage.close(), 300);
  await assert.rejects(listing, coded("interrupted"));
});
