import assert from "node:assert/strict";
import { test } from "node:test";
import { RequestReader } from "./request-reader.ts";

const SENT = [
  "PUT /bucket/one HTTP/1.1\r\nHost: h\r\nContent-Length: 27\r\n\r\nGET /in-a-body HTTP/1.1\r\n\r\n",
  "GET /bucket/one HTTP/1.1\r\nHost: h\r\n\r\n",
  "DELETE /bucket/one HTTP/1.1\r\ncontent-length:0\r\n\r\n",
].join("");
const LINES = ["PUT /bucket/one HTTP/1.1", "GET /bucket/one HTTP/1.1", "DELETE /bucket/one HTTP/1.1"];

test("RequestReader finds requests in chunks of any size", () => {
  for (const size of [1, 2, 3, 7, 64, SENT.length]) {
    const lines: string[] = [];
    const reader = new RequestReader((line) => void lines.push(line));
    for (let at = 0; at < SENT.length; at += size) reader.take(Buffer.from(SENT.slice(at, at + size)));
    assert.deepEqual(lines, LINES, `in pieces of ${size}`);
  }
});

test("RequestReader reports a request whose body has no known length as uncounted", () => {
  const lines: string[] = [];
  const reader = new RequestReader((line) => void lines.push(line));
  reader.take(Buffer.from("PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
  assert.deepEqual(lines, ["PUT /a HTTP/1.1", "UNCOUNTED a body of unknown length"]);
});
