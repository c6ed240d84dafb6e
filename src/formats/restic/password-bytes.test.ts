import assert from "node:assert/strict";
import test from "node:test";
import { formerPassword, passwordOfFile, trimPassword } from "./password-bytes.ts";

const latin1 = (text: string): Buffer => Buffer.from(text, "latin1");

test("trimPassword removes white space and keeps bytes that are not UTF-8", () => {
  const cases: [string, string][] = [
    ["gehe\xefm-p\xe4ss\r\n", "gehe\xefm-p\xe4ss"],
    ["\xfe\x80\x41\xe4\xc3\x28\x99", "\xfe\x80\x41\xe4\xc3\x28\x99"],
    // Unicode's white space as its bytes of UTF-8: U+0085, U+00A0, U+3000, U+2029, U+1680.
    [" \xc2\xa0\xc2\x85 \xffp\xe3\x80\x80w\xff\x0b\xe2\x80\xa9\xe1\x9a\x80 \t", "\xffp\xe3\x80\x80w\xff"],
    // Half of it, and what is none: U+200B, U+001F, U+FEFF.
    ["\xa0\x85x\xe2\x80", "\xa0\x85x\xe2\x80"],
    ["x\xe2\x80\x8b", "x\xe2\x80\x8b"],
    ["x\x1f\n", "x\x1f"],
    ["\xef\xbb\xbfx\xef\xbb\xbf\n", "\xef\xbb\xbfx\xef\xbb\xbf"],
    [" \n", ""],
    ["", ""],
  ];
  for (const [given, wanted] of cases)
    assert.deepEqual(Buffer.from(trimPassword(latin1(given))), latin1(wanted), given);
});

test("passwordOfFile decodes a file with a byte order mark as restic does", () => {
  const text = " p\u00e4\u{1f600}\n";
  const read = (bytes: Uint8Array): string => Buffer.from(passwordOfFile(bytes)).toString("utf8");
  const little = Buffer.from(`\ufeff${text}`, "utf16le");
  assert.equal(read(Buffer.from(`\ufeff${text}`)), text.trim());
  assert.equal(read(little), text.trim());
  assert.equal(read(Buffer.from(little).swap16()), text.trim());
  const cut = Buffer.concat([Buffer.from("\ufeff\ud800x", "utf16le"), Buffer.from("A")]);
  assert.equal(read(cut), "\ufffdx\ufffd");
});

test("formerPassword returns the password of an earlier Cairn only if it differs", () => {
  const former = (text: string): string | null => formerPassword(latin1(text), passwordOfFile(latin1(text)));
  assert.equal(former("secret \n"), null);
  assert.equal(former("p\xc3\xa4ss\n"), null);
  assert.equal(former("\xef\xbb\xbfsecret"), null);
  assert.equal(former("p\xe4ss\n"), "p\ufffdss");
  assert.equal(former("secret\xc2\x85\n"), "secret\u0085");
  assert.equal(former("\xff\xfep\0w\0"), "\ufffd\ufffdp\0w\0");
  assert.equal(former("\xef\xbb\xbf \n"), null);
});
