import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import test from "node:test";
import { readHiddenLine } from "./hidden-line.ts";

const latin1 = (text: string): Buffer => Buffer.from(text, "latin1");

async function typed(...chunks: string[]): Promise<string> {
  const input = new PassThrough();
  const line = readHiddenLine(input);
  for (const chunk of chunks) input.write(latin1(chunk));
  return Buffer.from(await line).toString("latin1");
}

test(
  "readHiddenLine returns the typed bytes after backspace, Ctrl-U and ignored keys",
  { timeout: 10_000 },
  async () => {
    assert.equal(await typed("gehe\xefm-p\xe4ss\r"), "gehe\xefm-p\xe4ss");
    assert.equal(await typed("p\xc3", "\xa4ss\n"), "p\xc3\xa4ss");
    // Backspace takes a character of UTF-8, else a byte.
    assert.equal(await typed("ab\xc3\xa4\x7f\x7fc\r"), "ac");
    assert.equal(await typed("\xe4\xe4\x7f\x08\x7fx\r"), "x");
    assert.equal(await typed("a\xf0\x9f\x98\x80\x7fb\r"), "ab");
    assert.equal(await typed("wrong\x15right\r"), "right");
    // Arrow keys and the like are not part of it.
    assert.equal(await typed("a\x1b[Ab\x1b[1;5Cc\x1bOPd\x04\r"), "abcd");
    assert.equal(await typed("\r"), "");
  },
);

test("readHiddenLine leaves bytes after the line to the next call", { timeout: 10_000 }, async () => {
  const input = new PassThrough();
  input.write("once\ntwice\n");
  assert.equal(Buffer.from(await readHiddenLine(input)).toString(), "once");
  assert.equal(Buffer.from(await readHiddenLine(input)).toString(), "twice");
});

test("readHiddenLine takes a carriage return and a line feed as one line end", { timeout: 10_000 }, async () => {
  const input = new PassThrough();
  input.write("once\r\ntwice\r");
  assert.equal(Buffer.from(await readHiddenLine(input)).toString(), "once");
  assert.equal(Buffer.from(await readHiddenLine(input)).toString(), "twice");
  input.write("\n");
  input.write("\nthen");
  assert.equal(Buffer.from(await readHiddenLine(input)).toString(), "");
});

test(
  "readHiddenLine ends on Ctrl-C, Ctrl-D, a signal or the end of input, and resets the terminal",
  { timeout: 10_000 },
  async () => {
    const modes: boolean[] = [];
    const terminal = (): PassThrough & { setRawMode: (raw: boolean) => void } =>
      Object.assign(new PassThrough(), { setRawMode: (raw: boolean) => void modes.push(raw) });
    const stopping = { code: "interrupted" };
    for (const key of ["se\x03", "\x04"]) {
      const input = terminal();
      input.write(key);
      await assert.rejects(readHiddenLine(input), stopping);
    }
    const gone = terminal();
    gone.end("secret");
    await assert.rejects(readHiddenLine(gone), stopping);
    const controller = new AbortController();
    const line = readHiddenLine(terminal(), controller.signal);
    controller.abort();
    await assert.rejects(line, stopping);
    await assert.rejects(readHiddenLine(terminal(), controller.signal), stopping);
    assert.deepEqual(modes, Array.from({ length: 5 }, () => [true, false]).flat());
  },
);
