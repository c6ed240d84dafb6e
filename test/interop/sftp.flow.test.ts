import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { SCRATCH, startCairn } from "../fixtures/command.ts";
import {
  backup,
  makeEmpty,
  noRestic,
  repositoryPlace,
  restic,
  tryBackup,
  type TestRepository,
} from "../fixtures/repository.ts";
import { startSshServer, type SshServer } from "../fixtures/ssh-server.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";

/** Repositories on a real OpenSSH server: the command and restic, which asks by way of OpenSSH's client. */

const server = await startSshServer();
const unable = "reason" in server ? server.reason : false;
const noPeer =
  unable !== false ? unable : spawnSync("ssh", ["-V"]).error === undefined ? noRestic : "ssh is not installed";
let repositories = 0;

if (!("reason" in server)) {
  process.env["CAIRN_SSH_COMMAND"] = server.command();
}
after(async () => ("reason" in server ? undefined : server.close()));

function running(): SshServer {
  assert.ok(!("reason" in server));
  return server;
}

function place(): TestRepository {
  const { passwordFile } = repositoryPlace("sftp");
  const location = `sftp:${running().location(`repository ${repositories++}`)}`;
  return { location, passwordFile, options: ["-r", location, "--password-file", passwordFile] };
}

/** restic starts the same client. */
function byClient(): string[] {
  const { port, user } = running();
  return ["-o", `sftp.command=${running().command()} -p ${port} ${user}@127.0.0.1 -s sftp`];
}

function snapshotsOf(remote: TestRepository): { id: string }[] {
  return JSON.parse(restic(remote, ...byClient(), "snapshots", "--json")) as { id: string }[];
}

test("restic checks and restores a backup that Cairn wrote over SFTP", { skip: noPeer }, () => {
  const folder = newFolder("backup");
  makeFirst(folder);
  const remote = place();
  backup(remote, "init");
  assert.equal(tryBackup(remote, "init").error?.code, "already_exists");
  backup(remote, "create", "-C", folder);
  const wanted = walkDigests(folder).state;
  makeSecond(folder);
  backup(remote, "create", "-C", folder);
  restic(remote, ...byClient(), "check", "--read-data");
  const [first] = snapshotsOf(remote);
  const target = path.join(SCRATCH, "restored");
  restic(remote, ...byClient(), "restore", first!.id, "--target", target, "--include", folder);
  assert.equal(walkDigests(path.join(target, folder)).state, wanted);
});

test("Cairn lists, verifies and extends a repository that restic made over SFTP", { skip: noPeer }, () => {
  const folder = newFolder("backup");
  makeFirst(folder);
  const remote = place();
  restic(remote, ...byClient(), "init");
  restic(remote, ...byClient(), "backup", folder);
  const [theirs] = snapshotsOf(remote);
  const ours = backup(remote, "create", "-C", folder).data as { parent: string | null };
  assert.equal(ours.parent, theirs?.id);
  restic(remote, ...byClient(), "backup", folder);
  restic(remote, ...byClient(), "forget", "--keep-last", "1", "--prune");
  makeSecond(folder);
  backup(remote, "create", "-C", folder);
  restic(remote, ...byClient(), "check", "--read-data");
  const listed = backup(remote, "list").data["snapshots"] as unknown[];
  assert.equal(listed.length, snapshotsOf(remote).length);
});

test("a backup over SFTP succeeds although its connections are killed three times", { skip: unable }, async () => {
  const folder = newFolder("backup");
  makeFirst(folder);
  const remote = place();
  await makeEmpty(remote);
  const run = startCairn(["backup", "create", ...remote.options, "-C", folder]);
  let kills = 0;
  const killing = setInterval(() => {
    // One less than the attempts that are made before the server has answered at all.
    if (running().connections() === 0 || kills >= 3) return;
    kills++;
    running().dropConnections();
  }, 50);
  const done = await run.ended.finally(() => clearInterval(killing));
  assert.equal(done.status, 0, done.stderr);
  assert.ok(kills > 0);
  const listed = backup(remote, "list").data["snapshots"] as unknown[];
  assert.equal(listed.length, 1);
});

test("an interrupted backup over SFTP removes its lock, and the next backup succeeds", { skip: unable }, async () => {
  const folder = newFolder("backup");
  fs.writeFileSync(path.join(folder, "random"), randomBytes(8 << 20));
  const remote = place();
  await makeEmpty(remote);
  const root = path.join(running().folder, `repository ${repositories - 1}`);
  const files = (name: string): string[] =>
    fs.readdirSync(path.join(root, name), { recursive: true, encoding: "utf8" });
  const slow = ["backup", "create", ...remote.options, "-C", folder, "--limit-upload", "100KiB"];
  const run = startCairn(slow);
  const isUploading = (): boolean => files("data").some((name) => name.includes("-cairn-temp-"));
  while (!isUploading() && run.child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(files("locks").length, 1);
  run.child.kill("SIGINT");
  const done = await run.ended;
  assert.equal(done.status, 130, done.stderr);
  assert.deepEqual(files("locks"), []);
  backup(remote, "create", "-C", folder);
  assert.equal((backup(remote, "list").data["snapshots"] as unknown[]).length, 1);
});

test("backup init refuses an SSH server whose host key is unknown", { skip: unable }, () => {
  const remote = place();
  process.env["CAIRN_SSH_COMMAND"] = running().command("-o UserKnownHostsFile=/dev/null");
  try {
    const refused = tryBackup(remote, "init");
    assert.equal(refused.status, 7);
    assert.equal(refused.error?.code, "refused");
    assert.match(refused.error.message, /Host key verification failed/);
    assert.match(refused.error.hint!, /run `ssh -p/);
  } finally {
    process.env["CAIRN_SSH_COMMAND"] = running().command();
  }
});
