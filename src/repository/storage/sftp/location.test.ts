import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../../../errors.ts";
import { parseSftpLocation, printSftpLocation } from "./location.ts";

test("parseSftpLocation reads both forms of restic's sftp locations", () => {
  const cases: [string, string | undefined, string, number | undefined, string][] = [
    ["me@host:/srv/repo", "me", "host", undefined, "/srv/repo"],
    ["host:repo/", undefined, "host", undefined, "repo"],
    ["me@realm@host:a:b@c", "me@realm", "host", undefined, "a:b@c"],
    ["host:/srv/me@other:x", undefined, "host", undefined, "/srv/me@other:x"],
    ["host:./me@other:x", undefined, "host", undefined, "me@other:x"],
    ["me@[::1]:/srv/./x/../repo", "me", "::1", undefined, "/srv/repo"],
    ["//me@host:2222//srv/repo", "me", "host", 2222, "/srv/repo"],
    ["//host/repo", undefined, "host", undefined, "repo"],
    ["//m%40e@[::1]:2222/a%20b", "m@e", "::1", 2222, "a b"],
    ["//host://", undefined, "host", undefined, "/"],
  ];
  for (const [text, user, host, port, path] of cases) {
    assert.deepEqual(parseSftpLocation(text), { user, host, port, path }, text);
  }
});

test("printSftpLocation returns a text that parses to the same location", () => {
  for (const text of [
    "me@host:/srv/repo",
    "host:repo",
    "//me@host:2222//srv/a b",
    "//m%40e@[::1]:22/x",
    "[::1]:x",
    "host:./a@b:c",
  ]) {
    const location = parseSftpLocation(text);
    assert.deepEqual(parseSftpLocation(printSftpLocation(location).slice("sftp:".length)), location, text);
  }
});

test("parseSftpLocation refuses invalid locations with an error that contains no password", () => {
  const wrong = [
    "",
    "host",
    ":x",
    "me@:x",
    "host:",
    "@host:x",
    "//host",
    "///x",
    "//host:0/x",
    "//host:70000/x",
    "//host/",
    "//h%ZZ/%zz",
    "host:~/x",
    "//host/~me/x",
    "a b:x",
  ];
  for (const text of wrong) {
    assert.throws(
      () => parseSftpLocation(text),
      (error) => error instanceof CairnError && error.code === "usage",
      text,
    );
  }
  for (const text of ["//me:secret@host/x", "//me:secret@host", "me:secret@host:/x", "me:se@cret@host:x"]) {
    assert.throws(
      () => parseSftpLocation(text),
      (error) => error instanceof CairnError && !`${error.message} ${error.hint}`.includes("secret"),
    );
  }
});
