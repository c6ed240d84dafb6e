import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { eventually } from "../../../test/fixtures/eventually.ts";
import { type SshServer, sshServer, type SshServerOptions } from "../../../test/fixtures/ssh-server.ts";
import { openSftpStorage, sftpTarget } from "./sftp-open.ts";
import { SshConnection } from "./ssh-connection.ts";

/** Servers that are reached through another one: real OpenSSH servers, with keys of their own each. */

type Env = Record<string, string | undefined>;

interface Scene {
  jump: SshServer;
  behind: SshServer;
  /** `route`: lines about the host `behind`; `more`: about others */
  env(route: string, more?: string): Env;
}

function blockOf(name: string, server: SshServer): string {
  return `Host ${name}
  HostName 127.0.0.1
  Port ${server.port}
  User ${server.user}
  IdentityFile ${join(server.home, ".ssh/id_ed25519")}
  UserKnownHostsFile ${join(server.home, ".ssh/known_hosts")}
`;
}

async function scene(t: TestContext, options: SshServerOptions = {}): Promise<Scene | null> {
  const jump = await sshServer(t, options);
  const behind = jump === null ? null : await sshServer(t);
  if (jump === null || behind === null) return null;
  const env = (route: string, more = ""): Env => {
    const config = join(behind.folder, "config");
    writeFileSync(config, `${more}${blockOf("jump second", jump)}${blockOf("behind", behind)}  ${route}\n`);
    return { HOME: join(behind.folder, "no-home"), CAIRN_SFTP_CONFIG: config };
  };
  return { jump, behind, env };
}

function byClient({ jump }: Scene): string {
  const known = join(jump.home, ".ssh/known_hosts");
  const options = `-F none -o IdentitiesOnly=yes -o UserKnownHostsFile=${known} -i ${join(jump.home, ".ssh/id_ed25519")}`;
  return `ssh ${options} -p ${jump.port} -W %h:%p ${jump.user}@127.0.0.1`;
}

async function roundTrip(env: Env, folder: string): Promise<void> {
  const storage = await openSftpStorage(`//behind/${folder}`, { create: true, env });
  await storage.save("config", "config", Buffer.from("through"));
  assert.equal(Buffer.from(await storage.load("config", "config")).toString(), "through");
  await storage.close();
}

for (const [name, route] of [
  ["another host", () => "ProxyJump jump"],
  ["two others", () => "ProxyJump second,jump"],
  ["another host, which is named by its address", ({ jump }) => `ProxyJump ${jump.user}@127.0.0.1:${jump.port}`],
  ["a command", (all) => `ProxyCommand ${byClient(all)}`],
] as [string, (all: Scene) => string][])
  test(`a storage is reached through ${name}, and nothing stays when it is closed`, async (t) => {
    const all = await scene(t);
    if (all === null) return;
    const { jump, behind, env } = all;
    // A host that is named by its address is in no block.
    const known = join(jump.home, ".ssh/known_hosts");
    const key = join(jump.home, ".ssh/id_ed25519");
    const more = `Host 127.0.0.1\n  IdentityFile ${key}\n  UserKnownHostsFile ${known}\n`;
    await roundTrip(env(route(all), more), join(behind.folder, "repo"));
    await eventually("no connection is left", () => jump.connections() === 0);
  });

test("a host between whose key is not known, or that lets nobody in, is named", async (t) => {
  const all = await scene(t);
  if (all === null) return;
  const { jump, env } = all;
  const open = async (more: string): Promise<unknown> =>
    SshConnection.open(sftpTarget("behind:x", env("ProxyJump jump", more)));
  const hosts = join(jump.folder, "no-hosts");
  await assert.rejects(open(`Host jump\n  UserKnownHostsFile ${hosts}\n`), (error: Error & { code: string }) => {
    assert.equal(error.code, "refused");
    return error.message.includes(`127.0.0.1:${jump.port}`);
  });
  const key = join(all.behind.home, ".ssh/id_ed25519");
  await assert.rejects(open(`Host jump\n  IdentitiesOnly yes\n  UserKnownHostsFile ${hosts}\n  User nobody-at-all\n`), {
    code: "refused",
  });
  writeFileSync(join(jump.folder, "authorized_keys"), "");
  await assert.rejects(open(`Host jump\n  IdentityFile ${key}\n`), { code: "permission" });
});

test("a host between that forwards nothing is an error that says so", async (t) => {
  const all = await scene(t, { settings: ["AllowTcpForwarding no"] });
  if (all === null) return;
  await assert.rejects(
    SshConnection.open(sftpTarget("behind:x", all.env("ProxyJump jump"))),
    (error: Error & { code: string; hint: string }) => {
      assert.match(error.message, new RegExp(`cannot reach 127.0.0.1:${all.behind.port} through 127.0.0.1:`));
      return error.code === "io" && error.hint.includes("AllowTcpForwarding");
    },
  );
});

test("a command that ends is an error with what it said", async (t) => {
  const all = await scene(t);
  if (all === null) return;
  for (const command of ["sh -c 'echo no way >&2; exit 1'", "/nonexistent/no-way"])
    await assert.rejects(SshConnection.open(sftpTarget("behind:x", all.env(`ProxyCommand ${command}`))), {
      code: "io",
      message: /no.way/,
    });
});

test("hosts that lead to each other are a usage error", async (t) => {
  const all = await scene(t);
  if (all === null) return;
  const env = all.env("ProxyJump jump", "Host jump\n  ProxyJump behind\n");
  assert.throws(() => sftpTarget("behind:x", env), { code: "usage" });
});

test("a connection through another host that breaks is made anew", async (t) => {
  const all = await scene(t);
  if (all === null) return;
  const { jump, behind, env } = all;
  const folder = join(behind.folder, "repo");
  const storage = await openSftpStorage(`//behind/${folder}`, { create: true, env: env("ProxyJump jump") });
  t.after(async () => storage.close());
  await storage.save("config", "config", Buffer.from("kept"));
  jump.dropConnections();
  const load = async (): Promise<string> => Buffer.from(await storage.load("config", "config")).toString();
  // What was under way fails in a way that may pass; what comes after it does not.
  const first = await load().catch((error: Error & { code: string }) => error.code);
  assert.ok(first === "kept" || first === "io", first);
  assert.equal(await load(), "kept");
});

test("an open storage behind another host does not keep the process alive", async (t) => {
  const all = await scene(t);
  if (all === null) return;
  const module = new URL("sftp-open.ts", import.meta.url).href;
  const routes = ["ProxyJump jump", `ProxyCommand ${byClient(all)}`];
  for (const route of routes) {
    const script: string = `const { openSftpStorage } = await import(${JSON.stringify(module)});
const storage = await openSftpStorage(${JSON.stringify(`//behind/${all.behind.folder}/alive`)}, { create: true });
console.log(JSON.stringify(await storage.list("config")));`;
    const env = { PATH: process.env["PATH"], ...all.env(route) } as Record<string, string>;
    const child: { stdout: string; stderr: string; status: number | null } = spawnSync(
      process.execPath,
      ["--input-type=module", "-e", script],
      {
        env,
        encoding: "utf8",
        timeout: 30_000,
      },
    );
    assert.deepEqual([child.stdout, child.status], ["[]\n", 0], child.stderr);
  }
});
