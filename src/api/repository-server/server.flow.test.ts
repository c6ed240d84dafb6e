import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { eventually } from "../../../test/fixtures/eventually.ts";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { makeNode } from "../../workspace/store/testing-edits.ts";
import { CairnError } from "../../errors.ts";
import { TYPE } from "../../fs/linux/syscalls.ts";
import { RepositoryServer } from "./server.ts";
import { nameOf, serve } from "./testing-server.ts";
import { TlsFiles } from "../tls-files.ts";

test("the server answers the requests of the protocol as restic documents them", async (t) => {
  const { ask, root } = await serve(t);
  const bytes = randomBytes(1000);
  const name = nameOf(bytes);
  assert.equal((await ask("GET", "r/data/")).status, 404);
  assert.equal((await ask("POST", `r/data/${name}`, { body: bytes })).status, 404);
  assert.equal((await ask("HEAD", "r/config")).status, 404);
  assert.equal((await ask("POST", "r/")).status, 400);
  assert.equal((await ask("POST", "r/?create=true")).status, 200);
  assert.equal((await ask("POST", "r?create=true")).status, 200);
  assert.equal((await ask("POST", `r/data/${name}`, { body: bytes })).status, 200);
  assert.equal((await ask("POST", `r/data/${name}`, { body: bytes })).status, 403);
  assert.equal((await ask("POST", "r/config", { body: "config" })).status, 200);
  assert.equal((await ask("POST", "r/config", { body: "other" })).status, 403);
  assert.equal((await ask("GET", "r/config")).text, "config");
  const head = await ask("HEAD", `r/data/${name}`);
  assert.deepEqual([head.status, head.headers.get("content-length")], [200, "1000"]);
  const v1 = await ask("GET", "r/data/");
  assert.deepEqual(
    [v1.headers.get("content-type"), v1.text],
    ["application/vnd.x.restic.rest.v1", JSON.stringify([name])],
  );
  const v2 = await ask("GET", "r/data/", { headers: { accept: "application/vnd.x.restic.rest.v2" } });
  assert.deepEqual(
    [v2.headers.get("content-type"), v2.text.replace(/,"written_at":\d+/, "")],
    ["application/vnd.x.restic.rest.v2", JSON.stringify([{ name, size: 1000 }])],
  );
  assert.equal((await ask("GET", "r/index/")).text, "[]");
  assert.equal((await ask("DELETE", `r/data/${name}`)).status, 200);
  assert.equal((await ask("DELETE", `r/data/${name}`)).status, 404);
  assert.equal((await ask("PUT", `r/data/${name}`, { body: bytes })).status, 405);
  assert.equal((await ask("DELETE", "r/")).status, 405);
  assert.deepEqual(readdirSync(join(root, "r/.cairn-uploads")), []);
});

test("an upload is readable by the group if the group can read the config file", async (t) => {
  const usual = process.umask(0o077);
  t.after(() => process.umask(usual));
  const { ask, root } = await serve(t);
  const bytes = randomBytes(1000);
  const name = nameOf(bytes);
  const at = (part: string): string => join(root, "r", part);
  await ask("POST", "r/?create=true");
  await ask("POST", "r/config", { body: "config" });
  for (const part of ["", "data"]) chmodSync(at(part), 0o2770);
  chmodSync(at("config"), 0o640);
  rmSync(at(".cairn-uploads"), { recursive: true });
  for (const kind of ["data", "snapshots"])
    assert.equal((await ask("POST", `r/${kind}/${name}`, { body: bytes })).status, 200);
  const part = name.slice(0, 2);
  const modes = [".cairn-uploads", `data/${part}`, `data/${part}/${name}`, `snapshots/${name}`].map((each) =>
    (statSync(at(each)).mode & 0o7777).toString(8),
  );
  assert.deepEqual(modes, ["2770", "2770", "640", "640"]);
});

test("a range request gives exactly the requested bytes", async (t) => {
  const { ask } = await serve(t);
  const text = "0123456789";
  const path = `r/index/${nameOf(text)}`;
  await ask("POST", "r/?create=true");
  await ask("POST", path, { body: text });
  const cases: [string, number, string, string | null][] = [
    ["bytes=2-4", 206, "234", "bytes 2-4/10"],
    ["bytes=7-", 206, "789", "bytes 7-9/10"],
    ["bytes=7-99", 206, "789", "bytes 7-9/10"],
    ["bytes=-3", 206, "789", "bytes 7-9/10"],
    ["bytes=-99", 206, text, "bytes 0-9/10"],
    ["bytes=10-", 416, "", "bytes */10"],
    ["bytes=99-100", 416, "", "bytes */10"],
    ["bytes=-0", 416, "", "bytes */10"],
    ["bytes=4-2", 200, text, null],
    ["bytes=0-1,3-4", 200, text, null],
    ["bytes=x", 200, text, null],
    ["bytes=-", 200, text, null],
    ["lines=1-2", 200, text, null],
  ];
  for (const [range, status, part, told] of cases) {
    const answer = await ask("GET", path, { headers: { range } });
    assert.deepEqual([answer.status, answer.text, answer.headers.get("content-range")], [status, part, told], range);
  }
});

test("the server refuses paths that lead out of its folder", async (t) => {
  const { raw, root } = await serve(t, { root: mkdtempSync(join(tmpdir(), "cairn-server-")) });
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const secret = nameOf("secret");
  mkdirSync(join(root, "..", "cairn-outside-data"), { recursive: true });
  t.after(() => rmSync(join(root, "..", "cairn-outside-data"), { recursive: true, force: true }));
  for (const path of [
    "/../cairn-outside-data/config",
    "/..%2fcairn-outside-data/config",
    "/%2e%2e/cairn-outside-data/?create=true",
    "/a%00b/?create=true",
    "/a%2f..%2f..%2fx/?create=true",
    "//x/?create=true",
    "/.hidden/?create=true",
    "/ x/?create=true",
    `/r/data/../../${secret}`,
    "http://elsewhere/r/?create=true",
    "\\..\\x",
  ]) {
    const wire = await raw();
    const said = await wire.say(`POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`)
      .closed;
    assert.match(said, /^HTTP\/1\.1 4\d\d /, path);
  }
  assert.deepEqual(readdirSync(root), []);
  assert.deepEqual(readdirSync(join(root, "..", "cairn-outside-data")), []);
});

test("only regular files with a digest as their name are listed and read", async (t) => {
  const { ask, root } = await serve(t);
  await ask("POST", "r/?create=true");
  const [pipe, folder, linked] = ["ab".repeat(32), "cd".repeat(32), "ef".repeat(32)];
  makeNode(join(root, "r/index", pipe), TYPE.PIPE);
  mkdirSync(join(root, "r/index", folder));
  symlinkSync("/etc/passwd", join(root, "r/index", linked));
  writeFileSync(join(root, "r/index/leftover"), "x");
  const list = await ask("GET", "r/index/", { headers: { accept: "application/vnd.x.restic.rest.v2" } });
  assert.equal(list.text, "[]");
  for (const name of [pipe, folder, linked]) assert.equal((await ask("GET", `r/index/${name}`)).status, 404);
  for (const name of [pipe, folder, linked]) assert.equal((await ask("HEAD", `r/index/${name}`)).status, 404);
});

test("an upload that its client aborts leaves no file", async (t) => {
  const { ask, raw, root, problems } = await serve(t);
  await ask("POST", "r/?create=true");
  const bytes = randomBytes(100_000);
  const uploads = join(root, "r/.cairn-uploads");
  for (const end of ["destroy", "resetAndDestroy"] as const) {
    const wire = await raw();
    wire
      .say(`POST /r/data/${nameOf(bytes)} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n`)
      .say(bytes.subarray(0, 50_000));
    await eventually("the upload has begun", () => existsSync(uploads) && readdirSync(uploads).length === 1);
    assert.equal((await ask("GET", "r/data/")).text, "[]");
    wire.socket[end]();
    await eventually("the upload is gone", () => readdirSync(uploads).length === 0);
  }
  assert.equal((await ask("GET", "r/data/")).text, "[]");
  assert.deepEqual(problems, []);
  assert.equal((await ask("POST", `r/data/${nameOf(bytes)}`, { body: bytes })).status, 200);
});

test("two simultaneous uploads of the same file leave one file", async (t) => {
  const { ask, root } = await serve(t);
  await ask("POST", "r/?create=true");
  const bytes = randomBytes(300_000);
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => ask("POST", `r/data/${nameOf(bytes)}`, { body: bytes })),
  );
  for (const { status } of answers) assert.ok(status === 200 || status === 403, String(status));
  assert.ok(answers.some(({ status }) => status === 200));
  assert.deepEqual(JSON.parse((await ask("GET", "r/data/")).text), [nameOf(bytes)]);
  assert.deepEqual(readdirSync(join(root, "r/.cairn-uploads")), []);
  const configs = await Promise.all(["a", "b", "c", "d"].map((body) => ask("POST", "r/config", { body })));
  assert.deepEqual(configs.map(({ status }) => status).toSorted(), [200, 403, 403, 403]);
});

test("the server refuses files that are too large, with or without a Content-Length", async (t) => {
  const { ask, raw, root } = await serve(t, { maximumFileBytes: 1000 });
  await ask("POST", "r/?create=true");
  const name = "ab".repeat(32);
  assert.equal((await ask("POST", `r/data/${name}`, { body: Buffer.alloc(200_000) })).status, 413);
  const wire = await raw();
  wire.say(`POST /r/data/${name} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`);
  wire.say(`7d0\r\n${"x".repeat(2000)}\r\n`);
  await wire.until(/^HTTP\/1\.1 413 /);
  wire.say("0\r\n\r\n").say("HEAD /r/config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  assert.match(await wire.closed, /HTTP\/1\.1 404 /);
  assert.deepEqual(readdirSync(join(root, "r/data")), []);
  const asking = await raw();
  const announced = (length: number): string =>
    `POST /r/data/${nameOf("x")} HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\nExpect: 100-continue\r\n\r\n`;
  assert.match(await asking.say(announced(5000)).closed, /^HTTP\/1\.1 413 /);
  const asked = await raw();
  await asked.say(announced(1)).until(/^HTTP\/1\.1 100 /);
  await asked.say("x").until(/HTTP\/1\.1 200 /);
});

test("an endless header, silence and noise on one connection do not affect other connections", async (t) => {
  const { ask, raw, root } = await serve(t);
  await ask("POST", "r/?create=true");
  const slow = await (await serve(t, { root, headMs: 200 })).raw();
  slow.say("GET /r/data/ HTTP/1.1\r\nHost: x\r\n");
  const noise = await raw();
  noise.say(Buffer.from([0x16, 3, 1, 0, 200, 1, 0, 0, 0xc4, 3, 3, 13, 10]));
  const long = await raw();
  long.say(`GET /${"a".repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`);
  assert.match(await slow.closed, /^HTTP\/1\.1 (?:400|408)/);
  assert.match(await noise.closed, /^HTTP\/1\.1 400/);
  assert.match(await long.closed, /^HTTP\/1\.1 431/);
  const impatient = await serve(t, { root, silenceMs: 300 });
  const silent = await impatient.raw();
  silent.say(`POST /r/data/${"ab".repeat(32)} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf`);
  assert.equal(await silent.closed, "");
  const uploads = join(root, "r/.cairn-uploads");
  await eventually("the upload is gone", () => !existsSync(uploads) || readdirSync(uploads).length === 0);
  assert.equal((await ask("GET", "r/data/")).text, "[]");
});

test("the server answers 507 if the disk is full, and does not list the unfinished file", async (t) => {
  const disk = loopFileSystem(t, "ext4", { size: 16 << 20 });
  if (disk === null) return;
  const { ask, root, problems } = await serve(t, { root: disk.root, maximumFileBytes: 1 << 30 });
  await ask("POST", "r/?create=true");
  const small = randomBytes(1000);
  assert.equal((await ask("POST", `r/data/${nameOf(small)}`, { body: small })).status, 200);
  const large = randomBytes(24 << 20);
  const answer = await ask("POST", `r/data/${nameOf(large)}`, { body: large });
  assert.deepEqual([answer.status, answer.text], [507, "the disk is full\n"]);
  assert.deepEqual(JSON.parse((await ask("GET", "r/data/")).text), [nameOf(small)]);
  assert.deepEqual(readdirSync(join(root, "r/.cairn-uploads")), []);
  assert.match(problems.join("\n"), /ENOSPC/);
  const again = randomBytes(100_000);
  assert.equal((await ask("POST", `r/data/${nameOf(again)}`, { body: again })).status, 200);
});

test("uploads that a killed server left are removed after an hour", async (t) => {
  const { ask, root } = await serve(t);
  await ask("POST", "r/?create=true");
  const uploads = join(root, "r/.cairn-uploads");
  mkdirSync(uploads);
  for (const name of ["old", "young"]) writeFileSync(join(uploads, name), "x");
  utimesSync(join(uploads, "old"), 1, 1);
  const bytes = randomBytes(10);
  await ask("POST", `r/index/${nameOf(bytes)}`, { body: bytes });
  await eventually("the old one is gone", () => !existsSync(join(uploads, "old")));
  assert.deepEqual(readdirSync(uploads), ["young"]);
});

test("stop lets an active upload finish, and aborts a stalled one", async (t) => {
  const { server, ask, raw, root } = await serve(t, { graceMs: 60_000 });
  await ask("POST", "r/?create=true");
  const bytes = randomBytes(1000);
  const uploads = join(root, "r/.cairn-uploads");
  const head = `POST /r/data/${nameOf(bytes)} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n`;
  const wire = await raw();
  wire.say(head).say(bytes.subarray(0, 500));
  await eventually("it has begun", () => existsSync(uploads) && readdirSync(uploads).length === 1);
  const stopped = server.stop();
  wire.say(bytes.subarray(500));
  assert.match(await wire.closed, /^HTTP\/1\.1 200 /);
  await stopped;
  assert.deepEqual(readFileSync(join(root, "r/data", nameOf(bytes).slice(0, 2), nameOf(bytes))), bytes);
  const hanging = await serve(t, { root, graceMs: 100 });
  await hanging.raw();
  const half = await hanging.raw();
  half.say(`POST /r/data/${"ab".repeat(32)} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf`);
  await eventually("it has begun", () => readdirSync(uploads).length === 1);
  await hanging.server.stop();
  await eventually("it is gone", () => readdirSync(uploads).length === 0);
});

test("start fails with the reason if its port is taken, its address is foreign or its certificate is invalid", async (t) => {
  const { server, root } = await serve(t);
  const options = {
    root,
    appendOnly: false,
    privateRepositories: false,
    maximumFileBytes: 1,
    credentials: null,
    onProblem: () => undefined,
  };
  const coded = (code: string) => (error: unknown) => error instanceof CairnError && error.code === code;
  const port = Number(new URL(server.url).port);
  await assert.rejects(RepositoryServer.start({ ...options, host: "127.0.0.1", port }), coded("busy"));
  await assert.rejects(RepositoryServer.start({ ...options, host: "203.0.113.7", port: 0 }), coded("usage"));
  const wrong = join(root, "wrong");
  writeFileSync(wrong, "no certificate");
  const tls = new TlsFiles(wrong, wrong);
  await assert.rejects(RepositoryServer.start({ ...options, host: "127.0.0.1", port: 0, tls }), coded("usage"));
});
