import assert from "node:assert/strict";
import { test } from "node:test";
import { JsonStrings } from "./json-strings.ts";

const WANTED = ["event", "session_id", "prompt", "tool_input.command"];

/** Reads JSON in chunks of some size. */
function read(json: string | Buffer, size = 7): Record<string, string | undefined> {
  const strings = new JsonStrings(WANTED);
  const bytes = Buffer.from(json as string);
  for (let at = 0; at < bytes.length; at += size) strings.push(bytes.subarray(at, at + size));
  strings.end();
  return Object.fromEntries(
    WANTED.flatMap((path) => (strings.get(path) === undefined ? [] : [[path, strings.get(path)]])),
  );
}

test("wanted strings are read from JSON in chunks of any size, in any order", () => {
  const wanted = { prompt: 'say "hi" \\ \u{1F511}\n\u0001é', event: "Stop", session_id: "" };
  const json = JSON.stringify({
    more: [1, { prompt: "no" }, [["no"]]],
    ...wanted,
    tool_input: { a: {}, command: "ls" },
  });
  for (let size = 1; size < 40; size++)
    assert.deepEqual(read(json, size), { ...wanted, "tool_input.command": "ls" }, `chunks of ${size} bytes`);
  const escaped = json.replaceAll(/[\u0080-\uffff]/g, hex);
  assert.deepEqual(read(escaped), { ...wanted, "tool_input.command": "ls" });
});

const hex = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;

test("members of the same name in other objects are not read, and the last of two members counts", () => {
  const json =
    '{"event":"a","x":{"event":"no","session_id":"no"},"l":[{"session_id":"no"}],"event":"b","tool_input":["c"]}';
  assert.deepEqual(read(json), { event: "b" });
  assert.deepEqual(read('{"tool_input":{"x":{"command":"no"},"command":["a b","c"]},"prompt":["d","e"]}'), {
    prompt: "d e",
    "tool_input.command": "a b c",
  });
});

test("a long string is cut at a whole character, and the members after it are read", () => {
  const long = "\u0001".repeat(1 << 20);
  const { prompt, event } = read(JSON.stringify({ prompt: long, event: "Stop" }), 1 << 16);
  assert.deepEqual([prompt, event], ["\u0001".repeat(64 << 10), "Stop"]);
});

test("input that ends early, has bytes that are no UTF-8, or is no JSON gives what could be read", () => {
  const json = Buffer.from('{"session_id":"s","prompt":"a \\u00e9\\\\ b');
  for (let length = 17; length <= json.length; length++)
    assert.equal(read(json.subarray(0, length))["session_id"], "s", `${length} bytes`);
  assert.deepEqual(read(json), { session_id: "s", prompt: "a é\\ b" });
  assert.deepEqual(read(json.subarray(0, json.length - 3)), { session_id: "s", prompt: "a é" });
  assert.deepEqual(read(Buffer.from('{"prompt":"a\xff\n","event":"e"}', "latin1")), { prompt: "a\uFFFD ", event: "e" });
  for (const text of ["", "no", '"event"', "}{", "[[[[", '{"event":1}', '{"event":null,"prompt":{}}'])
    assert.deepEqual(read(text), {}, text);
  assert.deepEqual(read(`${"[".repeat(1e6)}{"event":"no"}`, 1 << 16), {});
});
