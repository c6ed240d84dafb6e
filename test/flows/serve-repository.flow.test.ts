import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import { connect } from "node:net";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { RestStorage } from "../../src/repository/storage/rest/rest.ts";
import { buildCommand, cairn, cairnOk, SCRATCH, startCairn, type Running } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";

/** The real command with real restic as its client, and killed at every step of an upload. */

const noRestic = spawnSync("restic", ["version"]).error === undefined ? false : "restic is not installed";
const noHtpasswd = spawnSync("htpasswd", []).error === undefined ? false : "htpasswd is not installed";
const noOpenssl = spawnSync("openssl", ["version"]).error === undefined ? false : "openssl is not installed";

interface Serving {
  running: Running;
  /** As a client names it, with a slash at the end. */
  address: string;
}

const servers: Running[] = [];
after(() => {
  for (const { child } of servers) child.kill("SIGKILL");
});

/** Settles when the server has printed where it listens. */
async function serve(args: readonly string[], failpoint?: string): Promise<Serving> {
  const settings = failpoint === undefined ? {} : { failpoint };
  const running = startCairn(["serve-repository", "--listen", "127.0.0.1:0", ...args], settings);
  servers.push(running);
  const address = await new Promise<string>((found, fail) => {
    let text = "";
    running.child.stdout!.on("data", (chunk: string) => {
      text += chunk;
      if (text.includes("\n")) found((JSON.parse(text) as { data: { repository: string } }).data.repository);
    });
    void running.ended.then(({ stderr }) => fail(new Error(`ended before it listened: ${text}${stderr}`)), fail);
  });
  return { running, address };
}

async function stop({ running }: Serving): Promise<void> {
  running.child.kill("SIGTERM");
  const ended = await running.ended;
  assert.equal(ended.status, 0, ended.stderr);
  // Everything was printed at the start.
  assert.equal(ended.stdout.split("\n").length, 2);
}

function newFolder(name: string): string {
  return fs.mkdtempSync(path.join(SCRATCH, `${name}-`));
}

interface Restic {
  status: number | null;
  said: string;
}

/** Interrupted once it has said `until`: it goes on trying for a quarter of an hour what is refused for good. */
function tryRestic(repository: string, args: readonly string[], until?: RegExp): Promise<Restic> {
  const child = spawn("restic", args, {
    env: {
      ...process.env,
      RESTIC_REPOSITORY: repository,
      RESTIC_PASSWORD: "password",
      RESTIC_CACHE_DIR: path.join(SCRATCH, "restic-cache"),
    },
  });
  let said = "";
  const hear = (chunk: Buffer): void => {
    said += chunk.toString();
    if (until?.test(said) === true) child.kill("SIGINT");
  };
  child.stdout.on("data", hear);
  child.stderr.on("data", hear);
  return new Promise((done, fail) => child.on("error", fail).on("close", (status) => done({ status, said })));
}

async function restic(repository: string, ...args: string[]): Promise<string> {
  const { status, said } = await tryRestic(repository, args);
  assert.equal(status, 0, `restic ${args.join(" ")}: ${said}`);
  return said;
}

function nameOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

before(() => void buildCommand());

describe("restic with serve-repository", { skip: noRestic }, () => {
  test("restic makes, fills, checks, restores and prunes a repository of serve-repository, also after a restart", async () => {
    const [root, source] = [newFolder("served"), newFolder("source")];
    makeFirst(source);
    fs.writeFileSync(path.join(source, "large"), randomBytes(20 << 20));
    const first = readFolder(source);
    let server = await serve(["--path", root, "--no-auth"]);
    let repository = `${server.address}some/repo`;
    await restic(repository, "init");
    assert.match((await tryRestic(repository, ["init"])).said, /already exists/);
    await restic(repository, "backup", source, "--tag", "one");
    await restic(repository, "check", "--read-data");
    await stop(server);

    server = await serve(["--path", root, "--no-auth"]);
    repository = `${server.address}some/repo/`;
    const target = newFolder("restored");
    await restic(repository, "restore", "latest", "--target", target);
    assertFolder(path.join(target, source), first, "first");
    makeSecond(source);
    fs.rmSync(path.join(source, "large"));
    const second = readFolder(source);
    await restic(repository, "backup", source, "--tag", "two");
    await restic(repository, "forget", "--keep-last", "1", "--group-by", "", "--prune", "--max-unused", "0");
    await restic(repository, "check", "--read-data");
    const last = newFolder("restored");
    await restic(repository, "restore", "latest", "--target", last);
    assertFolder(path.join(last, source), second, "second");
    await stop(server);
    // The folder is a repository that needs no server.
    await restic(path.join(root, "some/repo"), "check", "--read-data");
    assert.deepEqual(fs.readdirSync(path.join(root, "some/repo/locks")), []);
  });

  test("serve-repository enforces users, private repositories and TLS", { skip: noOpenssl }, async () => {
    const [root, source] = [newFolder("served"), newFolder("source")];
    makeFirst(source);
    const [key, certificate, users] = ["key.pem", "cert.pem", "users"].map((name) => path.join(newFolder("tls"), name));
    const subject = ["-subj", "/CN=cairn", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
    const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const made = spawnSync("openssl", ["req", ...kind, ...subject, "-keyout", key!, "-out", certificate!]);
    assert.equal(made.status, 0, String(made.stderr));
    const hashed = spawnSync(process.execPath, [buildCommand(), "serve-repository", "--hash-password", "alice"], {
      input: "s3cret\n",
      encoding: "utf8",
    });
    assert.match(hashed.stdout, /^alice:\$scrypt\$\S+\n$/);
    fs.writeFileSync(users!, hashed.stdout);
    const server = await serve(
      ["--path", root, "--htpasswd", users!, "--private-repositories"].concat(["--tls", certificate!, "--tls", key!]),
    );
    assert.match(server.address, /^rest:https:\/\/127\.0\.0\.1:\d+\/USER\/$/);
    const at = (user: string, password: string, repository: string): string =>
      server.address.replace("//", `//${user}:${password}@`).replace("USER", repository);
    const trusting = ["--cacert", certificate!];
    await restic(at("alice", "s3cret", "alice/laptop"), ...trusting, "init");
    await restic(at("alice", "s3cret", "alice/laptop"), ...trusting, "backup", source);
    await restic(at("alice", "s3cret", "alice/laptop"), ...trusting, "check", "--read-data");
    for (const refused of [
      at("alice", "wrong", "alice/x"),
      at("alice", "s3cret", "bob/x"),
      at("alice", "s3cret", ""),
      at("carol", "s3cret", "carol"),
    ])
      assert.notEqual((await tryRestic(refused, [...trusting, "init"])).status, 0, refused);
    assert.deepEqual(fs.readdirSync(root), ["alice"]);
    assert.deepEqual(fs.readdirSync(path.join(root, "alice")), ["laptop"]);
    await stop(server);
  });

  test("serve-repository accepts users of rest-server's .htpasswd file", { skip: noHtpasswd }, async () => {
    const [root, source] = [newFolder("served"), newFolder("source")];
    makeFirst(source);
    const made = spawnSync("htpasswd", ["-cbB", path.join(root, ".htpasswd"), "carol", "s3cret"]);
    assert.equal(made.status, 0, String(made.stderr));
    const server = await serve(["--path", root, "--private-repositories"]);
    const at = (password: string, repository: string): string =>
      server.address.replace("//", `//carol:${password}@`).replace("USER", repository);
    await restic(at("s3cret", "carol"), "init");
    await restic(at("s3cret", "carol"), "backup", source);
    await restic(at("s3cret", "carol"), "check", "--read-data");
    assert.notEqual((await tryRestic(at("wrong", "carol"), ["snapshots"])).status, 0);
    // Its own files are no repository.
    const port = new URL(server.address.slice("rest:".length)).port;
    const asked = await fetch(`http://127.0.0.1:${port}/.htpasswd`, {
      headers: { authorization: `Basic ${Buffer.from("carol:s3cret").toString("base64")}` },
    });
    assert.ok(asked.status >= 400 && !(await asked.text()).includes("$2y$"));
    await stop(server);
  });

  test("serve-repository --append-only lets restic back up and read, and refuses removals", async () => {
    const [root, source] = [newFolder("served"), newFolder("source")];
    makeFirst(source);
    const server = await serve(["--path", root, "--no-auth", "--append-only"]);
    await restic(server.address, "init");
    await restic(server.address, "backup", source);
    makeSecond(source);
    await restic(server.address, "backup", source);
    const before = files(root);
    const forgotten = await tryRestic(server.address, ["forget", "--keep-last", "1", "--prune"], /403/);
    assert.match(forgotten.said, /403/);
    for (const name of before) assert.ok(files(root).includes(name), name);
    await restic(server.address, "unlock", "--remove-all");
    await restic(server.address, "check", "--read-data");
    assert.match(await restic(server.address, "snapshots"), /2 snapshots/);
    assert.deepEqual(fs.readdirSync(path.join(root, "locks")), []);
    await stop(server);
  });
});

test("cairn backup works through serve-repository, and restic reads the snapshot", async () => {
  const [root, source] = [newFolder("served"), newFolder("work")];
  makeFirst(source);
  const server = await serve(["--path", root, "--no-auth", "--append-only"]);
  const options = { cwd: source, env: { CAIRN_PASSWORD: "password" } };
  const to = ["-r", `${server.address}ours`];
  // In processes of their own: the server is one too.
  cairnOk(["save"], options);
  cairnOk(["backup", "init", ...to], options);
  cairnOk(["backup", "create", ...to], options);
  assert.equal((cairnOk(["backup", "list", ...to], options).data["snapshots"] as unknown[]).length, 1);
  if (noRestic === false) {
    await restic(`${server.address}ours`, "check", "--read-data");
    const target = newFolder("restored");
    await restic(`${server.address}ours`, "restore", "latest", "--target", target, "--include", source);
    assertFolder(path.join(target, source), readFolder(source), "ours");
  }
  await stop(server);
  const gone = cairn(["backup", "list", "-r", "rest:http://user:s3cret@127.0.0.1:1/?x"], options);
  assert.equal(gone.status, 2);
  assert.doesNotMatch(gone.stdout + gone.stderr, /s3cret/);
});

function files(root: string): string[] {
  return fs
    .readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.endsWith("/locks"))
    .map((entry) => path.join(entry.parentPath, entry.name));
}

for (const [step, shows] of [
  ["serve-received", false],
  ["serve-flushed", false],
  ["serve-named", true],
  ["serve-single", true],
] as const) {
  test(`a server killed at ${step} of an upload lists ${shows ? "the whole file" : "no file"}, and the upload can be repeated`, async () => {
    const root = newFolder("killed");
    const bytes = randomBytes(100_000);
    const name = nameOf(bytes);
    const dying = await serve(["--path", root, "--no-auth"], step);
    const storage = await RestStorage.create(`${dying.address}r`);
    await assert.rejects(storage.save("data", name, bytes), /socket hang up|ECONNRESET/);
    assert.ok((await dying.running.ended).killed);
    await storage.close();
    const next = await serve(["--path", root, "--no-auth"]);
    const again = new RestStorage(`${next.address}r`);
    const listed = (await again.list("data")).map((each) => ({ name: each.name, size: each.size }));
    assert.deepEqual(listed, shows ? [{ name, size: bytes.length }] : []);
    await again.save("data", name, bytes);
    assert.deepEqual(Buffer.from(await again.load("data", name)), bytes);
    await again.close();
    await stop(next);
  });
}

test("a server killed in the middle of an upload lists no partial file", async () => {
  const root = newFolder("killed");
  const server = await serve(["--path", root, "--no-auth"]);
  const storage = await RestStorage.create(`${server.address}r`);
  const socket = connect(Number(new URL(server.address.slice(5)).port), "127.0.0.1");
  socket.on("error", () => undefined);
  socket.write(`POST /r/data/${"ab".repeat(32)} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf`);
  const uploads = path.join(root, "r/.cairn-uploads");
  while (!fs.existsSync(uploads) || fs.readdirSync(uploads).length === 0) await storage.list("data");
  server.running.child.kill("SIGKILL");
  await server.running.ended;
  await storage.close();
  const next = await serve(["--path", root, "--no-auth"]);
  const again = new RestStorage(`${next.address}r`);
  assert.deepEqual(await again.list("data"), []);
  assert.equal(fs.readdirSync(uploads).length, 1);
  await again.close();
  await stop(next);
});

test("serve-repository refuses to start without a folder or users, or with contradictory options", () => {
  const root = newFolder("served");
  const refused = (args: readonly string[], status: number, pattern: RegExp): void => {
    const listen = args.includes("--listen") ? [] : ["--listen", "127.0.0.1:0"];
    const done = cairn(["serve-repository", ...listen, ...args]);
    assert.equal(done.status, status, done.stdout);
    assert.match(`${done.error?.message} ${done.error?.hint}`, pattern);
  };
  refused(["--path", root], 2, /--no-auth/);
  refused(["--no-auth"], 2, /--path/);
  refused(["--path", path.join(root, "absent"), "--no-auth"], 3, /mkdir/);
  refused(["--path", root, "--no-auth", "--private-repositories"], 2, /exclude/);
  refused(["--path", root, "--no-auth", "--htpasswd", "x"], 2, /exclude/);
  refused(["--path", root, "--htpasswd", path.join(root, "absent")], 3, /--hash-password/);
  refused(["--path", root, "--no-auth", "--tls-cert", "x"], 2, /use --tls FILE instead/);
  refused(["--path", root, "--no-auth", "--listen", "8000"], 2, /HOST:PORT/);
  refused(["--path", root, "--no-auth", "--listen", "127.0.0.1:70000"], 2, /HOST:PORT/);
  const open = cairn(["serve-repository", "--path", root, "--no-auth", "--listen", "0.0.0.0:0", "--check"]);
  assert.equal(open.status, 0, open.stdout);
  assert.match(open.warnings.join(), /every client/);
  const check = [buildCommand(), "serve-repository", "--path", root, "--no-auth", "--listen", "127.0.0.1:0", "--check"];
  assert.match(spawnSync(process.execPath, check, { encoding: "utf8" }).stdout, /^would serve /);
});
