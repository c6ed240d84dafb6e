import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import type { CairnError } from "../../errors.ts";
import { ask } from "./guest.ts";
import { getFile, putFile, runIn } from "./guest-work.ts";

const FOLDER = mkdtempSync(path.join(tmpdir(), "cairn-guest-"));
const servers: net.Server[] = [];
after(() => {
  for (const server of servers) server.close();
  rmSync(FOLDER, { recursive: true, force: true });
});

interface Said {
  id: string;
  do?: string;
  in?: string | null;
  still?: boolean;
  size?: number;
}

/** A guest that answers each valid line with pieces of text. */
async function guest(answer: (said: Said, socket: net.Socket) => readonly (object | string)[]): Promise<string> {
  const file = path.join(FOLDER, `${servers.length}.sock`);
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    let text = "";
    socket.setEncoding("utf8").on("data", (more: string) => {
      text += more;
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        if (line === "") continue;
        const said = JSON.parse(line) as Said;
        for (const each of answer(said, socket))
          socket.write(typeof each === "string" ? each : `${JSON.stringify({ id: said.id, ...each })}\n`);
      }
    });
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(file, done));
  return file;
}

const fails = async (work: Promise<unknown>, message: RegExp): Promise<void> => {
  await assert.rejects(work, (error: CairnError) => error.code === "io" && message.test(error.message));
};

test("ask skips junk, half a line of an earlier answer and answers to other requests", async () => {
  const place = await guest(({ id }) => [
    'alf of an answer"}\n<html>\n[1]\nnull\n"text"\n',
    `${JSON.stringify({ id: "other", done: { of: "another" } })}\n`,
    { began: 1 },
    { did: "clock" },
    `${JSON.stringify({ id, done: { of: "this" } }).slice(0, 10)}`,
    `${JSON.stringify({ id, done: { of: "this" } }).slice(10)}\n`,
  ]);
  const heard: unknown[] = [];
  const done = await ask(
    place,
    { do: "hello" },
    { hear: (answer) => void heard.push(answer["did"] ?? answer["began"]) },
  );
  assert.deepEqual([done, heard], [{ of: "this" }, [1, "clock"]]);
});

test("a guest that sends too much, closes the port, stays silent or refuses makes a request fail", async () => {
  await fails(ask(await guest(() => ["x".repeat(200_000)]), { do: "hello" }), /too long/);
  await fails(ask(await guest(() => [`${"x".repeat(60_000)}\n`.repeat(80)]), { do: "hello" }), /without a meaning/);
  const closes = await guest((_said, socket) => {
    socket.end('{"id":');
    return [];
  });
  await fails(ask(closes, { do: "hello" }), /closed the connection/);
  await fails(ask(await guest(() => []), { do: "hello" }, { totalMs: 30 }), /did not answer within/);
  await fails(ask(await guest(() => [{ began: 1 }]), { do: "hello" }, { quietMs: 30 }), /did not answer within/);
  await fails(
    ask(await guest(() => [{ failed: "no\u001b[31m such\nfile" }]), { do: "get" }),
    /^the guest's service: no\?\[31m such\?file$/,
  );
  await assert.rejects(ask(path.join(FOLDER, "none"), { do: "hello" }), { code: "not_found" });
  await assert.rejects(ask(closes, { do: "x".repeat(100_000) }), { code: "usage" });
});

test("ask fails once the service says that it started again, and waits while it says that it works", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let asked = 0;
  const place = await guest(({ still }) => {
    if (still !== true) return [{ began: 2 }, { out: "" }];
    asked += 1;
    return [asked < 3 ? { still: true } : { failed: "it started again" }];
  });
  const hear = ({ began }: Readonly<Record<string, unknown>>): void => {
    if (began === undefined) t.mock.timers.tick(5000);
  };
  await fails(ask(place, { do: "exec" }, { hear }), /started again/);
  assert.equal(asked, 3);
});

test("ask sends nothing for a call that was aborted before, and its input once", async () => {
  const said: Said[] = [];
  const place = await guest((each) => {
    said.push(each);
    return each.in === null ? [{ done: {} }] : [{ began: 2 }, { began: 2 }];
  });
  async function* pieces(): AsyncGenerator<Uint8Array> {}
  const input = { pieces: pieces() };
  await assert.rejects(ask(place, { do: "exec" }, { input, signal: AbortSignal.abort() }), { code: "interrupted" });
  assert.deepEqual(said, []);
  await ask(place, { do: "exec" }, { input });
  assert.deepEqual(
    said.map(({ in: piece }) => piece),
    [undefined, null],
  );
});

test("runIn passes output on, and accepts only an exit status", async () => {
  async function* nothing(): AsyncGenerator<Uint8Array> {}
  const streams = (said: string[]) => ({
    input: nothing(),
    write: async (bytes: Buffer, to: string) => void said.push(`${to} ${bytes.toString()}`),
  });
  const says = (status: unknown) => (said: Said) =>
    said.in === null ? [{ out: "b25l" }, { err: "dHdv" }, { done: { status } }] : [{ began: 1 }];
  const said: string[] = [];
  assert.equal(await runIn(await guest(says(3)), ["x"], streams(said)), 3);
  assert.deepEqual(said, ["out one", "err two"]);
  for (const wrong of [-1, 256, 1.5, "0", null])
    await fails(runIn(await guest(says(wrong)), ["x"], streams([])), /exit status/);
});

test("putFile sends no more than the guest takes, and needs its confirmation", async () => {
  const file = path.join(FOLDER, "to-send");
  const bytes = randomBytes(900_000);
  writeFileSync(file, bytes);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  let waiting = 0;
  let most = 0;
  const takes = (confirmed: string) => (said: Said, socket: net.Socket) => {
    if (said.do === "put") return [{ began: 1 }];
    if (said.in === null) return [{ done: { size: said.size, sha256: confirmed } }];
    const count = Buffer.from(said.in!, "base64").length;
    waiting += count;
    most = Math.max(most, waiting);
    setImmediate(() => {
      waiting -= count;
      socket.write(`${JSON.stringify({ id: said.id, took: count })}\n`);
    });
    return [];
  };
  assert.deepEqual(await putFile(await guest(takes(sha256)), file, "/x"), { bytes: bytes.length, sha256 });
  assert.ok(most <= 256 << 10, String(most));
  await fails(putFile(await guest(takes("0".repeat(64))), file, "/x"), /does not confirm/);
  await assert.rejects(putFile(await guest(() => []), path.join(FOLDER, "none"), "/x"), { code: "not_found" });
});

test("getFile leaves a whole file or none", async () => {
  const folder = mkdtempSync(path.join(FOLDER, "got-"));
  const bytes = randomBytes(40_000);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const whole = { size: bytes.length, sha256 };
  const sends = (size: number, pieces: Buffer[], done: object) => () => [
    { began: 1 },
    { size, mode: 0o640 },
    ...pieces.map((piece) => ({ out: piece.toString("base64") })),
    { done },
  ];
  const halves = [bytes.subarray(0, 30_000), bytes.subarray(30_000)];
  const to = path.join(folder, "file");
  for (const [answer, message] of [
    [sends(bytes.length, halves.slice(1), whole), /10000 of 40000 bytes/],
    [sends(10, halves, whole), /more bytes than it said/],
    [sends(bytes.length, halves.toReversed(), whole), /SHA-256 differs/],
    [() => [{ began: 1 }, { failed: "not a regular file" }], /not a regular file/],
  ] as const) {
    await fails(getFile(await guest(answer), "/x", to), message);
    assert.deepEqual(readdirSync(folder), []);
  }
  assert.deepEqual(await getFile(await guest(sends(bytes.length, halves, whole)), "/x", to), {
    bytes: bytes.length,
    sha256,
  });
  assert.deepEqual(readFileSync(to), bytes);
  symlinkSync(to, path.join(folder, "link"));
  for (const name of ["link", "."])
    await assert.rejects(getFile(await guest(() => []), "/x", path.join(folder, name)), { code: "usage" });
  await assert.rejects(getFile(await guest(() => []), "/x", "/dev/null"), { code: "usage" });
  assert.deepEqual(readdirSync(folder), ["file", "link"]);
});
