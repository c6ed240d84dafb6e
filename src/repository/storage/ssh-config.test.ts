import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { sshSettings, type SshSettings, type SshSettingsOptions } from "./ssh-config.ts";

function settings(
  alias: string,
  text: string,
  options: SshSettingsOptions & { files?: Record<string, string> } = {},
): SshSettings {
  const home = mkdtempSync(join(tmpdir(), "cairn-ssh-config-"));
  try {
    mkdirSync(join(home, ".ssh/config.d"), { recursive: true });
    writeFileSync(join(home, ".ssh/config"), text);
    for (const [name, content] of Object.entries(options.files ?? {})) writeFileSync(join(home, ".ssh", name), content);
    const found = sshSettings(alias, { home, env: {}, ...options });
    return JSON.parse(JSON.stringify(found).replaceAll(home, "HOME")) as SshSettings;
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

const TEXT = `
# what is common stands last
Host backup b?ckup2 !backup22
  HostName %h.example
  Port = 2222
  User "keeper of things"
  IdentityFile ~/.ssh/backup_key
  IdentityFile %d/.ssh/%r-%h-%p
Host *.example
  UserKnownHostsFile /one "~/two files"
  IdentitiesOnly yes
Match user nobody
  Port 1
Host *
  Port 2200
  IdentityFile ~/.ssh/common
  HostKeyAlias alias # a comment
`;

test("the first value of a host's blocks holds, and its identity files add up", () => {
  const found = settings("backup", TEXT);
  assert.equal(found.host, "backup.example");
  assert.equal(found.port, 2222);
  assert.equal(found.user, "keeper of things");
  assert.equal(found.hostKeyAlias, "alias");
  const own = "HOME/.ssh/keeper of things-backup.example-2222";
  assert.deepEqual(found.identityFiles, ["HOME/.ssh/backup_key", own, "HOME/.ssh/common"]);
  assert.equal(found.knownHostsFiles, undefined);
});

test("blocks apply by pattern to the name that was given", () => {
  assert.equal(settings("bxckup2", TEXT).port, 2222);
  assert.equal(settings("backup22", TEXT).port, 2200);
  const wild = settings("A.Example", TEXT);
  assert.deepEqual(wild.knownHostsFiles, ["/one", "HOME/two files"]);
  assert.equal(wild.identitiesOnly, true);
  assert.equal(wild.host, "A.Example");
});

test("what the location says goes before the file, and without a file the defaults hold", () => {
  const found = settings("backup", TEXT, { user: "me", port: 22 });
  assert.deepEqual([found.user, found.port], ["me", 22]);
  const bare = sshSettings("host", { home: "/nonexistent" });
  assert.deepEqual([bare.host, bare.port, bare.user], ["host", 22, userInfo().username]);
  assert.deepEqual(bare.identityFiles, []);
});

test("a file that was named and is not there is told, and /dev/null is none", () => {
  assert.throws(() => settings("host", "", { file: "/nowhere/config" }), {
    code: "not_found",
    message: /\/nowhere\/config/,
  });
  assert.equal(settings("host", "Port 2222", { file: "/dev/null" }).port, 22);
});

test("included files are read where they stand, and only there", () => {
  const files = {
    "config.d/1": "Port 7\nHost other\nUser lost",
    "config.d/2": "User second\nPort 8",
    mine: "User mine",
  };
  const found = settings("host", "Include config.d/*\nUser last\nHost elsewhere\nInclude mine", { files });
  assert.deepEqual([found.port, found.user], [7, "second"]);
  assert.throws(() => settings("host", "Include config"), /16 deep/);
});

test("a host may be reached through others or through a command; the first of both holds", () => {
  const via = (text: string, alias = "host"): unknown => settings(alias, text).via;
  assert.deepEqual(via("Host h*\nProxyJump jump"), { jumps: [{ alias: "jump" }] });
  assert.equal(via("Host h*\nProxyJump jump", "other"), null);
  assert.deepEqual(via("ProxyJump me@one:7,ssh://two,[::1]:22"), {
    jumps: [{ alias: "one", user: "me", port: 7 }, { alias: "two" }, { alias: "::1", port: 22 }],
  });
  assert.deepEqual(via("User u\nPort 8\nHostName %h.example\nproxycommand=nc  -x 'a b' %h %p # %r %n %% %u"), {
    command: "nc  -x 'a b' host.example 8 # u host % %u",
  });
  assert.equal(via("ProxyJump none\nProxyJump jump\nProxyCommand nc"), null);
  assert.deepEqual(via("ProxyCommand nc\nProxyJump jump"), { command: "nc" });
  for (const text of ["ProxyJump a@b@c", "ProxyJump ,", "ProxyJump host:99999"])
    assert.throws(() => via(text), { code: "usage" });
});

test("a name in which a shell would find a command does not get into one", () => {
  for (const alias of ["$(id)", "a;b", "-oProxyCommand=x", "a b", "`id`", "a|b", "a\nb"]) {
    for (const text of ["ProxyCommand nc %h", "ProxyJump jump"])
      assert.throws(() => settings(alias, text), { code: "usage" });
    assert.equal(settings(alias, "ProxyJump none").via, null);
  }
  assert.throws(() => settings("host", "ProxyCommand nc %h", { user: "$(id)" }), { code: "usage" });
});

test("the agent can be named or switched off", () => {
  assert.equal(settings("host", "").identityAgent, undefined);
  assert.equal(settings("host", "IdentityAgent none").identityAgent, null);
  assert.equal(settings("host", "IdentityAgent SSH_AUTH_SOCK").identityAgent, undefined);
  assert.equal(settings("host", "IdentityAgent ~/agent").identityAgent, "HOME/agent");
  assert.equal(settings("host", "IdentityAgent ${DIR}/agent", { env: { DIR: "/run" } }).identityAgent, "/run/agent");
});

test("a port that is none is named", () => {
  for (const port of ["0", "65536", "ssh"]) assert.throws(() => settings("host", `Port ${port}`), /1 to 65535/);
});
