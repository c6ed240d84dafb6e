import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server } from "node:net";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { makeKey, sshServer, startSshServer, type SshServer } from "../../../../test/fixtures/ssh-server.ts";
import type { CairnError } from "../../../errors.ts";
import { RetryingStorage } from "../retrying.ts";
import { SftpSession } from "./session.ts";
import { openSftpStorage } from "./sftp.ts";
import { SshProcess } from "./ssh.ts";

/** What OpenSSH's client says becomes of a connection, and how it is started. */

const shared = await startSshServer();
after(async () => ("reason" in shared ? undefined : shared.close()));

function sharedServer(t: TestContext): SshServer | null {
  if (!("reason" in shared)) return shared;
  t.skip(shared.reason);
  return null;
}

/** Lists a repository by another command line of ssh; the words before the server's own hold. */
async function listBy(server: SshServer, command: string, env = process.env): Promise<unknown> {
  const storage = await openSftpStorage(server.location("repo"), { env: { ...env, CAIRN_SSH_COMMAND: command } });
  try {
    return await storage.list("config");
  } finally {
    await storage.close();
  }
}

test("sftp storage refuses a host with an unknown or changed key", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const hosts = join(server.folder, "other_hosts");
  const command = server.command(`-o UserKnownHostsFile=${hosts}`);
  writeFileSync(hosts, "");
  const unknown = { code: "refused", message: /Host key verification failed/, hint: /`ssh -p \d+ \S+@127\.0\.0\.1`/ };
  await assert.rejects(listBy(server, command), unknown);
  assert.equal(readFileSync(hosts, "utf8"), "", "nothing is learned");
  const other = join(server.folder, "other");
  makeKey(other);
  const [type, key] = readFileSync(`${other}.pub`, "utf8").split(" ");
  writeFileSync(hosts, `[127.0.0.1]:${server.port} ${type} ${key}\n`);
  await assert.rejects(listBy(server, command), { code: "refused", message: /has changed.*verification failed/ });
  writeFileSync(hosts, server.knownHosts());
  assert.deepEqual(await listBy(server, command), []);
});

test("sftp storage throws permission for a key that the server does not accept, without retries", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const key = join(server.folder, "unknown-key");
  makeKey(key);
  const counted = join(server.folder, "count");
  const ssh = server.command().replace(/ -i \S+/, ` -i ${key}`);
  const CAIRN_SSH_COMMAND = `sh -c 'echo x >> ${counted}; exec ${ssh} "$@"' sh`;
  const inner = await openSftpStorage(server.location("repo"), { env: { ...process.env, CAIRN_SSH_COMMAND } });
  const storage = new RetryingStorage(inner);
  t.after(() => storage.close!());
  await assert.rejects(storage.list("config"), { code: "permission", message: /Permission denied \(publickey/ });
  assert.equal(readFileSync(counted, "utf8"), "x\n");
});

test("sftp storage uses the key of a running ssh-agent", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const SSH_AUTH_SOCK = join(server.folder, "agent");
  const agent = spawn("ssh-agent", ["-D", "-a", SSH_AUTH_SOCK], { stdio: ["ignore", "pipe", "ignore"] });
  t.after(() => agent.kill());
  await new Promise((resolve, reject) => agent.on("error", reject).stdout.once("data", resolve));
  const env = { ...process.env, SSH_AUTH_SOCK };
  const command = server
    .command()
    .replace(/ -i \S+/, "")
    .replace("IdentitiesOnly=yes", "IdentityFile=none")
    .replace("IdentityAgent=none", "BatchMode=yes");
  await assert.rejects(listBy(server, command, env), { code: "permission" });
  assert.equal(spawnSync("ssh-add", ["-q", join(server.home, ".ssh/id_ed25519")], { env }).status, 0);
  assert.deepEqual(await listBy(server, command, env), []);
  const ended = new Promise((resolve) => agent.once("exit", resolve));
  agent.kill("SIGKILL");
  await ended;
  await assert.rejects(listBy(server, command, env), (error: CairnError) => {
    assert.equal(error.code, "permission");
    assert.doesNotMatch(error.message, /agent/);
    return true;
  });
});

test("sftp storage throws an error with a hint to install ssh if ssh is missing", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const hint = /install OpenSSH's client/;
  await assert.rejects(listBy(server, "/nowhere/ssh -4"), { code: "unsupported", message: /nowhere/, hint });
  const PATH = join(server.folder, "empty");
  const storage = await openSftpStorage(server.location("repo"), { env: { PATH } });
  await assert.rejects(storage.list("config"), { code: "unsupported", message: /ssh.*not found/, hint });
});

test("CAIRN_SSH_COMMAND is split as a shell does, and the location's host and user stay separate words", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const [program, told] = [join(server.folder, "a program"), join(server.folder, "told")];
  writeFileSync(program, `#!/bin/sh\nprintf '<%s>' "$@" > '${told}'\necho only this >&2\nexit 3\n`);
  chmodSync(program, 0o755);
  const env = { ...process.env, WORD: "one word", CAIRN_SSH_COMMAND: `'${program}' -a "$WORD" b\\ c` };
  for (const [location, words] of [
    ["host:x", "<-s><host><sftp>"],
    ["//me@host:2222/x", "<-l><me><-p><2222><-s><host><sftp>"],
    ["a b@[::1]:x", "<-l><a b><-s><::1><sftp>"],
  ] as const) {
    const storage = await openSftpStorage(location, { env });
    await assert.rejects(storage.list("config"), { code: "io", message: /ended \(status 3\): only this$/ });
    assert.equal(readFileSync(told, "utf8"), `<-a><one word><b c><-o><BatchMode=yes>${words}`);
  }
});

test("openSftpStorage refuses a host or user that ssh or a shell could read as an option or command", async () => {
  for (const location of ["-oProxyCommand=x:y", "//-oProxyCommand=x/y", "me@-x:y", "h;id:y", "$(id):y", "`id`:y"])
    await assert.rejects(openSftpStorage(location), { code: "usage" }, location);
  for (const location of ["-l@host:y", "a;id@host:y", "a`id`@host:y", "//%2Dx@host/y", "//a%3Bid@host/y"])
    await assert.rejects(openSftpStorage(location), { code: "usage" }, location);
});

test("error messages that ssh prints before the session are mapped to error codes", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const told = async (line: string): Promise<string> =>
    listBy(server, `sh -c 'echo "$0" >&2; exit 255' '${line}'`).then(
      () => "fine",
      (error: { code: string }) => error.code,
    );
  assert.equal(await told("ssh: Could not resolve hostname nowhere: Name or service not known"), "usage");
  assert.equal(await told("ssh: Could not resolve hostname x: Temporary failure in name resolution"), "io");
  assert.equal(await told("ssh: connect to host x port 22: Connection refused"), "io");
  assert.equal(await told("subsystem request failed on channel 0"), "unsupported");
  assert.equal(await told("Unable to negotiate with x port 22: no matching host key type found."), "unsupported");
  assert.equal(await told("me@x: Permission denied (publickey)."), "permission");
  assert.equal(await told("/x/config: line 1: Bad configuration option: foo"), "usage");
});

test("connecting to an SFTP server throws io if the server is down or speaks another protocol", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  assert.deepEqual(await listBy(server, server.command()), []);
  await server.stop();
  await assert.rejects(listBy(server, server.command()), { code: "io", message: /Connection refused/ });
  const rude = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  const port = await listening(t, rude);
  const target = { host: "127.0.0.1", user: "me", port, command: server.command() };
  await assert.rejects(SftpSession.open(target), { code: "io" });
});

test("SftpSession.open throws io after its time limit, and waits for a slow server", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const silent = createServer();
  const port = await listening(t, silent);
  const target = { host: "127.0.0.1", user: server.user, port, command: server.command() };
  const impatient = SftpSession.open(target, { connectTimeoutMs: 300 });
  await assert.rejects(impatient, { code: "io", message: /gave no SFTP session within 0 s/ });
  const command = `sh -c 'sleep 1; exec "$0" "$@"' ${server.command()}`;
  assert.deepEqual(await listBy(server, command), []);
});

async function listening(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return (server.address() as AddressInfo).port;
}

test("ssh without BatchMode at a terminal is not ended by Ctrl-C", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const said = join(server.folder, "asked");
  const command = `sh -c 'echo "$@" > ${said}; kill -INT $$; echo still there >&2; exit 1' sh`;
  const ended = Promise.withResolvers<Error>();
  const reader = { data: () => undefined, end: ended.resolve };
  const ssh = new SshProcess({ host: "h", user: undefined, port: undefined, command }, reader, { mayAsk: true });
  ssh.ref();
  assert.match((await ended.promise).message, /status 1\): still there/);
  assert.equal(readFileSync(said, "utf8"), "-s h sftp\n");
});

test("an open sftp storage does not keep its process alive, and its ssh ends with the process", async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  const module = new URL("sftp.ts", import.meta.url).href;
  const script = `const { openSftpStorage } = await import(${JSON.stringify(module)});
const storage = await openSftpStorage(${JSON.stringify(server.location("alive"))}, { create: true });
console.log(JSON.stringify(await storage.list("config")));`;
  const options = { env: server.env, encoding: "utf8", timeout: 60_000 } as const;
  assert.equal(execFileSync(process.execPath, ["--input-type=module", "-e", script], options), "[]\n");
  for (let tries = 0; server.connections() > 0; tries++) {
    assert.ok(tries < 100);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
});

test("openSftpStorage does not connect before the first call", async (t) => {
  const server = sharedServer(t);
  if (server === null) return;
  const asked = join(server.folder, "was-asked");
  const env = { ...process.env, CAIRN_SSH_COMMAND: `touch ${asked}; false` };
  const storage = await openSftpStorage("//me@127.0.0.1:1/x", { env });
  assert.equal(storage.location, "sftp://me@127.0.0.1:1/x");
  await storage.close();
  assert.equal(existsSync(asked), false);
});
