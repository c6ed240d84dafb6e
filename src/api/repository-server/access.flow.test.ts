import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import { eventually } from "../../../test/fixtures/eventually.ts";
import { CairnError } from "../../errors.ts";
import { Credentials, htpasswdLine } from "./credentials.ts";
import { serve } from "./testing-server.ts";
import { TlsFiles } from "../tls-files.ts";

const noOpenssl = spawnSync("openssl", ["version"]).error === undefined ? false : "openssl is not installed";

function basic(user: string, password: string): { authorization: string } {
  return { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}` };
}

test("the server accepts no more connections than its limit", async (t) => {
  const { raw, ask } = await serve(t, { maximumConnections: 3 });
  const wires = [await raw(), await raw(), await raw()];
  // Seen by the server once they have been answered.
  for (const wire of wires) await wire.say("GET /x/data/ HTTP/1.1\r\nHost: x\r\n\r\n").until(/404/);
  assert.equal(await (await raw()).closed, "");
  for (const wire of wires) wire.socket.destroy();
  await eventually("there is room again", () => wires.every(({ socket }) => socket.destroyed));
  await eventually("there is room for a request", async () =>
    ask("GET", "x/data/")
      .then(({ status }) => status === 404)
      .catch(() => false),
  );
});

test("the server refuses requests of a web page", async (t) => {
  const { raw, root } = await serve(t);
  for (const header of ["Origin: http://elsewhere", "Origin: null", "Sec-Fetch-Site: cross-site"]) {
    const wire = await raw();
    wire.say(`POST /r/?create=true HTTP/1.1\r\nHost: x\r\n${header}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    assert.match(await wire.closed, /^HTTP\/1\.1 403/);
  }
  assert.deepEqual(readdirSync(root), []);
});

test("without passwords the server answers no page that points a name of its own at this machine", async (t) => {
  const { raw } = await serve(t);
  const statusOf = async (host: string): Promise<string> => {
    const wire = await raw();
    wire.say(`GET /x/data/ HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    return (await wire.closed).slice(9, 12);
  };
  for (const host of ["evil.example", "evil.example:8000", "127.0.0.1.nip.example", "localhost.evil.example", ""])
    assert.equal(await statusOf(host), "403", host);
  for (const host of ["127.0.0.1:8000", "[::1]:8000", "localhost", "nas", "nas.local:8000", "192.168.1.4"])
    assert.equal(await statusOf(host), "404", host);
});

test("users log in with either form of password, and the file of users is read again if it changes", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-users-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "users");
  const said: string[] = [];
  const note = (message: string): void => void said.push(message);
  const sha = `bob:{SHA}${createHash("sha1").update("bobs").digest("base64")}`;
  const line = await htpasswdLine("alice", "pässwörd");
  writeFileSync(file, `${line}\n${sha}\n`);
  const { ask } = await serve(t, { credentials: Credentials.open(file, note), privateRepositories: true });
  const status = async (path: string, user: string, password: string): Promise<number> =>
    (await ask("POST", path, { headers: basic(user, password) })).status;
  assert.equal(await status("alice/r/?create=true", "alice", "pässwörd"), 200);
  assert.equal(await status("alice/r/?create=true", "alice", "pässwörd"), 200);
  assert.equal(await status("bob/?create=true", "bob", "bobs"), 200);
  assert.equal(await status("alice/r/?create=true", "bob", "bobs"), 403);
  assert.equal(await status("?create=true", "alice", "pässwörd"), 403);
  for (const [user, password] of [
    ["alice", "x"],
    ["alice", ""],
    ["carol", "bobs"],
    ["", "bobs"],
    ["bob", "bobs\0"],
  ] as const)
    assert.equal(await status("bob/?create=true", user, password), 401, user);
  for (const authorization of ["", "Basic", "Basic !", "Bearer x", `Basic ${"A".repeat(6000)}`, "Basic Ym9i"])
    assert.equal((await ask("POST", "bob/?create=true", { headers: { authorization } })).status, 401);
  const without = await ask("POST", "bob/?create=true");
  assert.match(without.headers.get("www-authenticate")!, /^Basic /);

  const fresh = join(folder, "new");
  writeFileSync(fresh, `bob:$apr1$abcdefgh$ijklmnopqrstuv\n${await htpasswdLine("carol", "c")}\n`);
  renameSync(fresh, file);
  const isOut = async (): Promise<boolean> => (await status("alice/r/?create=true", "alice", "pässwörd")) !== 200;
  await eventually("alice can log in no more", isOut);
  assert.equal(await status("bob/?create=true", "bob", "bobs"), 401);
  assert.equal(await status("carol/?create=true", "carol", "c"), 200);
  assert.match(said.join("\n"), /line 1: .*MD5.*cannot log in/);
  assert.doesNotMatch(said.join("\n"), /abcdefgh/);
});

// Of `htpasswd -nbBC 5` and 12; a user's password is their name in capitals.
const BCRYPT = [
  "carol:$2y$05$yuTLHWwB2ZAzPB3JVu4nLe0gbhKnPG6RJrEu.4gWpCCAuRUeIPw3q",
  "dave:$2y$12$4G3joQ3eil0BfkUa.jAzHOi9Ui7MW51lY/vQgrfxt98HKHLRos9I6",
];

/** Work is told by the processor's time, which does not depend on what else the machine does. */
function msOf({ user, system }: NodeJS.CpuUsage): number {
  return (user + system) / 1000;
}

test("users log in with bcrypt passwords, and checks of bcrypt run outside the main thread", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-users-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "users");
  writeFileSync(file, `${BCRYPT.join("\n")}\n`);
  const credentials = Credentials.open(file, (message) => assert.fail(message));
  const login = async (user: string, password: string): Promise<unknown> =>
    credentials.login(basic(user, password).authorization);
  assert.deepEqual(await login("carol", "CAROL"), { user: "carol" });
  assert.deepEqual(await login("carol", "carol"), { refused: "unknown" });
  // Also with the password by which a name that is not there is tried.
  assert.deepEqual(await login("nobody", "CAROL"), { refused: "unknown" });
  const [before, mineBefore] = [process.cpuUsage(), process.threadCpuUsage()];
  const [right, wrong] = await Promise.all([login("dave", "DAVE"), login("dave", "guess")]);
  const [all, mine] = [msOf(process.cpuUsage(before)), msOf(process.threadCpuUsage(mineBefore))];
  assert.deepEqual([right, wrong], [{ user: "dave" }, { refused: "unknown" }]);
  assert.ok(mine < all / 3, `this thread has done ${Math.round(mine)} of ${Math.round(all)} ms of the work`);
});

test("a refused login takes as much work for an unknown name as for a known name", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-users-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "users");
  const sha = `bob:{SHA}${createHash("sha1").update("bobs").digest("base64")}`;
  writeFileSync(file, `${sha}\n${await htpasswdLine("alice", "right")}\n${BCRYPT[0]}\n`);
  const credentials = Credentials.open(file, (message) => assert.fail(message));
  const took = async (user: string): Promise<number> => {
    const before = process.cpuUsage();
    assert.deepEqual(await credentials.login(basic(user, "guess").authorization), { refused: "unknown" });
    return msOf(process.cpuUsage(before));
  };
  // Its thread is started by the first.
  await took("carol");
  const dearest = Math.min(await took("alice"), await took("alice"));
  for (const user of ["bob", "carol", "nobody"]) {
    const time = await took(user);
    assert.ok(time > dearest / 3, `${user}: ${Math.round(time)} of ${Math.round(dearest)} ms`);
  }
  assert.deepEqual(await credentials.login(basic("bob", "bobs").authorization), { user: "bob" });
});

test("the server does not start with a missing or invalid file of users", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-users-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "users");
  const start = (code: string, pattern: RegExp): void =>
    void assert.throws(
      () => Credentials.open(file, () => undefined),
      (error) => error instanceof CairnError && error.code === code && pattern.test(error.message),
    );
  start("not_found", /no file of users/);
  writeFileSync(file, "# nobody\n");
  start("usage", /names no user/);
  writeFileSync(file, "bob:$2y$15$abcdefghijklmnopqrstuv\n");
  start("usage", /line 1: .*bcrypt/);
});

test("the server uses a renewed certificate, and ignores a broken one", { skip: noOpenssl }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-tls-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [certificate, key] = [join(folder, "cert"), join(folder, "key")];
  const make = (name: string): void => {
    const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    const fresh = join(folder, "fresh");
    execFileSync("openssl", ["req", ...kind, "-subj", `/CN=${name}`, "-keyout", key, "-out", fresh], {
      stdio: "ignore",
    });
    renameSync(fresh, certificate);
  };
  make("first");
  const { server, problems } = await serve(t, { tls: new TlsFiles(certificate, key), renewMs: 20 });
  const { port } = new URL(server.url);
  const nameShown = (): Promise<string> =>
    new Promise((found, fail) => {
      const socket = connectTls({ port: Number(port), host: "127.0.0.1", rejectUnauthorized: false }, () => {
        found(String(socket.getPeerCertificate().subject.CN));
        socket.destroy();
      });
      socket.on("error", fail);
    });
  assert.equal(await nameShown(), "first");
  make("second");
  await eventually("the second is shown", async () => (await nameShown()) === "second");
  writeFileSync(certificate, "no certificate");
  await eventually("it is said", () => problems.some((problem) => /the old certificate stays in use/.test(problem)));
  assert.equal(await nameShown(), "second");
});
