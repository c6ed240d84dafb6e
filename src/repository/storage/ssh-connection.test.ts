import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { appendFileSync, copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import { makeKey, sshServer, startSshServer, type SshServer } from "../../../test/fixtures/ssh-server.ts";
import { openSftpStorage, sftpTarget } from "./sftp-open.ts";
import { hostKeyAlgorithms, SshConnection } from "./ssh-connection.ts";

const shared = await startSshServer({ hostKeys: ["rsa", "ed25519"] });
after(async () => ("reason" in shared ? undefined : shared.close()));

function sharedServer(t: TestContext): SshServer | null {
  if (!("reason" in shared)) return shared;
  t.skip(shared.reason);
  return null;
}

type Env = Record<string, string | undefined>;

/** A connection and its end; what went wrong otherwise. */
async function connect(server: SshServer, env: Env = server.env): Promise<CairnError | null> {
  try {
    (await SshConnection.open(sftpTarget(server.location("repo"), env))).close();
    return null;
  } catch (error) {
    assert.ok(error instanceof CairnError, String(error));
    return error;
  }
}

/** With other known hosts than the server's own. */
async function connectKnowing(server: SshServer, knownHosts: string): Promise<CairnError | null> {
  const home = join(server.folder, "other-home");
  execFileSync("cp", ["-r", server.home, home]);
  try {
    writeFileSync(join(home, ".ssh/known_hosts"), knownHosts);
    return await connect(server, { HOME: home });
  } finally {
    rmSync(home, { recursive: true });
  }
}

test("a host whose key is noted is connected to, plain, hashed or by a pattern", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const line = server.knownHosts("ed25519");
  assert.equal(await connectKnowing(server, line), null);
  const file = join(server.folder, "hashed");
  writeFileSync(file, line);
  execFileSync("ssh-keygen", ["-q", "-H", "-f", file], { stdio: "ignore" });
  assert.match(readFileSync(file, "utf8"), /^\|1\|/);
  assert.equal(await connectKnowing(server, readFileSync(file, "utf8")), null);
  assert.equal(await connectKnowing(server, line.replace(/^\S+/, "[127.0.0.*]:*")), null);
});

test("the key type that is noted is the one that is asked for", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  assert.equal(await connectKnowing(server, server.knownHosts("rsa")), null);
  assert.equal(await connectKnowing(server, server.knownHosts("ed25519")), null);
  assert.deepEqual(hostKeyAlgorithms(["ssh-rsa", "ssh-unheard-of"]).slice(0, 3), [
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-ed25519",
  ]);
});

test("an unknown host key is refused with its fingerprint and the line to add", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  for (const unknown of ["", server.knownHosts().replace(/^\S+/, "127.0.0.1"), `!${server.knownHosts()}`]) {
    const error = await connectKnowing(server, unknown);
    assert.equal(error?.code, "refused");
    const file = join(server.folder, "host_ed25519.pub");
    const [, fingerprint] = execFileSync("ssh-keygen", ["-l", "-f", file], { encoding: "utf8" }).split(" ");
    assert.ok(error.message.includes(fingerprint!), error.message);
    const line = `${error.details?.["line"] as string}\n`;
    assert.equal(line, server.knownHosts("ed25519"));
    assert.equal(await connectKnowing(server, line), null);
  }
});

test("a changed host key is refused, also when only one of another type is noted", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const other = join(server.folder, "other");
  makeKey(other);
  const [type, key] = readFileSync(`${other}.pub`, "utf8").split(" ");
  const error = await connectKnowing(server, `[127.0.0.1]:${server.port} ${type} ${key}\n`);
  assert.equal(error?.code, "refused");
  assert.match(error.message, /is not the one that is known/);
  assert.match(error.hint!, /ssh-keygen -R/);
  const ecdsa = join(server.folder, "other-ecdsa");
  makeKey(ecdsa, "ecdsa");
  const [kind, bytes] = readFileSync(`${ecdsa}.pub`, "utf8").split(" ");
  assert.equal((await connectKnowing(server, `[127.0.0.1]:${server.port} ${kind} ${bytes}\n`))?.code, "refused");
});

test("a revoked host key is refused although it is noted", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const line = server.knownHosts("ed25519");
  const error = await connectKnowing(server, `${line}@revoked ${line.replace(/^\S+/, "*")}`);
  assert.equal(error?.code, "refused");
  assert.match(error.message, /revoked/);
});

test("a file of known hosts and one of keys can be named, and ssh's configuration names them too", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const [key, hosts] = [join(server.home, ".ssh/id_ed25519"), join(server.home, ".ssh/known_hosts")];
  const home = join(server.folder, "empty-home");
  assert.equal((await connect(server, { HOME: home }))?.code, "refused");
  assert.equal((await connect(server, { HOME: home, CAIRN_SFTP_KNOWN_HOSTS: hosts }))?.code, "permission");
  assert.equal(await connect(server, { HOME: home, CAIRN_SFTP_KNOWN_HOSTS: hosts, CAIRN_SFTP_KEY_FILE: key }), null);
  const config = join(server.folder, "config");
  const lines = [
    "Host backup",
    "HostName 127.0.0.1",
    `Port ${server.port}`,
    `User ${server.user}`,
    `IdentityFile ${key}`,
  ];
  writeFileSync(config, [...lines, `UserKnownHostsFile ${hosts}`].join("\n"));
  const target = sftpTarget("backup:repo", { HOME: home, CAIRN_SFTP_CONFIG: config });
  (await SshConnection.open(target)).close();
});

test("a key that the server does not know is refused with what was tried, and no secret", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const key = join(server.folder, "unknown-key");
  makeKey(key);
  const error = await connect(server, {
    ...server.env,
    CAIRN_SFTP_KEY_FILE: key,
    CAIRN_SFTP_PASSWORD: "a secret word",
  });
  assert.equal(error?.code, "permission");
  assert.ok(error.message.includes(`key ${key}`), error.message);
  assert.ok(!JSON.stringify([error.message, error.hint, error.details]).includes("a secret word"));
  const absent = await connect(server, { ...server.env, CAIRN_SFTP_KEY_FILE: join(server.folder, "nowhere") });
  assert.match(absent!.message, /nowhere is not there/);
  const halved = await connect(server, { ...server.env, CAIRN_SFTP_KEY_FILE: `${key}.pub` });
  assert.match(halved!.message, /unknown-key.pub is a public key/);
});

test("a key with a passphrase opens with it, and says so when there is none or a wrong one", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const key = join(server.folder, "passphrase-key");
  makeKey(key, "ed25519", "open sesame");
  appendFileSync(join(server.folder, "authorized_keys"), readFileSync(`${key}.pub`));
  const env = { ...server.env, CAIRN_SFTP_KEY_FILE: key };
  assert.equal(await connect(server, { ...env, CAIRN_SFTP_PASSPHRASE: "open sesame" }), null);
  const without = await connect(server, env);
  assert.equal(without?.code, "permission");
  assert.match(without.message, /needs a passphrase/);
  const wrong = await connect(server, { ...env, CAIRN_SFTP_PASSPHRASE: "sesame" });
  assert.equal(wrong?.code, "permission");
  assert.match(wrong.message, /the passphrase does not open/);
});

test("an agent's keys are used, those of a named file first", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const socket = join(server.folder, "agent");
  const agent = spawn("ssh-agent", ["-D", "-a", socket], { stdio: ["ignore", "pipe", "ignore"] });
  t.after(() => agent.kill());
  await new Promise((resolve, reject) => agent.on("error", reject).stdout.once("data", resolve));
  const env: Env = { ...process.env, SSH_AUTH_SOCK: socket };
  const add = (file: string, input = ""): void => {
    const added = spawnSync("ssh-add", ["-q", file], { env, input, encoding: "utf8" });
    assert.equal(added.status, 0, added.stderr);
  };
  const home = join(server.folder, "agent-home");
  const hosts = join(server.home, ".ssh/known_hosts");
  const ask: Env = { HOME: home, CAIRN_SFTP_KNOWN_HOSTS: hosts, SSH_AUTH_SOCK: socket };
  assert.equal((await connect(server, ask))?.code, "permission");
  // More than a server lets anybody try.
  for (let i = 0; i < 7; i++) {
    makeKey(join(server.folder, `agent-key-${i}`));
    add(join(server.folder, `agent-key-${i}`));
  }
  add(join(server.home, ".ssh/id_ed25519"));
  const tooMany = await connect(server, ask);
  assert.equal(tooMany?.code, "permission");
  assert.match(tooMany.message, /too many keys/);
  const named = join(server.folder, "named");
  copyFileSync(join(server.home, ".ssh/id_ed25519.pub"), `${named}.pub`);
  assert.equal(await connect(server, { ...ask, CAIRN_SFTP_KEY_FILE: named }), null);
  const config = join(server.folder, "agent-config");
  writeFileSync(config, `IdentityFile ${named}\nIdentitiesOnly yes\nUserKnownHostsFile ${hosts}\n`);
  assert.equal(await connect(server, { HOME: home, CAIRN_SFTP_CONFIG: config, SSH_AUTH_SOCK: socket }), null);
  const gone = join(server.folder, "no-agent");
  assert.equal(await connect(server, { ...server.env, SSH_AUTH_SOCK: gone }), null);
});

test("a server that is away, is silent or speaks something else is an error that may pass", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  await server.stop();
  assert.equal((await connect(server))?.code, "io");
  await server.start();
  assert.equal(await connect(server), null);
  const silent = createServer(() => undefined).listen(0, "127.0.0.1");
  const rude = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")).listen(0, "127.0.0.1");
  t.after(() => [silent, rude].forEach((each) => each.close()));
  for (const other of [silent, rude]) {
    if (!other.listening) await new Promise((resolve) => other.once("listening", resolve));
    const target = sftpTarget(`//me@127.0.0.1:${(other.address() as AddressInfo).port}/x`, server.env);
    await assert.rejects(
      SshConnection.open({ ...target, connectTimeoutMs: 300 }),
      (error) => error instanceof CairnError && error.code === "io",
    );
  }
});

test("a host that does not exist is a usage error", async () => {
  await assert.rejects(
    SshConnection.open(sftpTarget("me@host.invalid:x", { HOME: "/nonexistent" })),
    // A resolver that is away is no proof of anything.
    (error) => error instanceof CairnError && (error.code === "usage" || /EAI_AGAIN/.test(error.message)),
  );
});

test("an open storage does not keep the process alive", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const module = new URL("sftp-open.ts", import.meta.url).href;
  const script = `const { openSftpStorage } = await import(${JSON.stringify(module)});
const storage = await openSftpStorage(${JSON.stringify(server.location("alive"))}, { create: true });
console.log(JSON.stringify(await storage.list("config")));`;
  const env = { PATH: process.env["PATH"], ...server.env } as Record<string, string>;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    env,
    encoding: "utf8",
    timeout: 60_000,
  });
  assert.equal(child.stdout, "[]\n", child.stderr);
  assert.equal(child.status, 0);
});

test("opening asks the server for nothing before the first call", async () => {
  const storage = await openSftpStorage("//me@127.0.0.1:1/x", { env: { HOME: "/nonexistent" } });
  assert.equal(storage.location, "sftp://me@127.0.0.1:1/x");
  await storage.close();
  assert.equal(existsSync("/nonexistent"), false);
});
