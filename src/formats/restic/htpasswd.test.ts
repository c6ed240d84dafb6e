import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { decodeHtpasswd, encodeHtpasswdLine } from "./htpasswd.ts";

/** `secret` by Python: hashlib.scrypt(b"secret", salt=bytes(range(16)), n=1024, r=8, p=2, dklen=32) and hashlib.sha1. */
const SCRYPT = "alice:$scrypt$ln=10,r=8,p=2$AAECAwQFBgcICQoLDA0ODw$deGxTNVOkY406o6Q+dZ51qHK01G3dD8MMiB+66SzwJA";
const SHA = "bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";

test("decodeHtpasswd reads scrypt and SHA-1 passwords, and skips blank lines and comments", () => {
  const { users, problems } = decodeHtpasswd(`# who\r\n\n${SCRYPT}\r\n${SHA}\n`);
  assert.deepEqual(problems, []);
  assert.deepEqual([...users.keys()], ["alice", "bob"]);
  const [alice, bob] = [users.get("alice")!, users.get("bob")!];
  assert.ok(alice.scheme === "scrypt");
  assert.deepEqual([alice.ln, alice.r, alice.p, alice.salt.length, alice.hash.length], [10, 8, 2, 16, 32]);
  assert.equal(bob.scheme, "sha1");
  assert.equal(encodeHtpasswdLine("alice", alice), SCRYPT);
  assert.equal(encodeHtpasswdLine("bob", bob), SHA);
});

test("decodeHtpasswd reports an invalid line by number and format without its hash, and reads the other lines", () => {
  const hash = "N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
  const lines: [string, RegExp][] = [
    [`a:$2y$05$${hash}x`, /bcrypt/],
    [`a:$2x$05$${hash}`, /bcrypt/],
    [`a:$2y$15$${hash}`, /cost of 15/],
    [`a:$2y$03$${hash}`, /bcrypt/],
    [`b:$apr1$x$${hash}`, /MD5/],
    [`c:$6$x$${hash}`, /crypt/],
    [`d:{SSHA}${hash}`, /salted/],
    [`e:${hash}`, /plain/],
    [`f:{SHA}${hash}`, /SHA-1/],
    [`no colon ${hash}`, /user name/],
    [`../up:{SHA}${hash}`, /user name/],
    [`.dot:{SHA}${hash}`, /user name/],
    [`:${hash}`, /user name/],
    [SHA, /earlier line/],
    [`g:$scrypt$ln=30,r=8,p=1$c2FsdA$${hash}`, /\$scrypt\$|memory/],
    ["h:$scrypt$ln=24,r=99,p=1$c2FsdA$AAAAAAAAAAAAAAAAAAAAAA", /memory/],
    ["i:$scrypt$ln=0,r=8,p=1$c2FsdA$AAAAAAAAAAAAAAAAAAAAAA", /memory/],
    ["j:$scrypt$ln=10,r=8,p=1$c2FsdA$AAAA", /ln=/],
    ["k:$scrypt$ln=10,r=8,p=1$c2FsdA==$AAAAAAAAAAAAAAAAAAAAAA", /ln=/],
    ["l:$scrypt$", /ln=/],
  ];
  for (const [line, pattern] of lines) {
    const { users, problems } = decodeHtpasswd(`${SHA}\n${line}\n`);
    assert.deepEqual([...users.keys()], ["bob"], line);
    assert.equal(problems.length, 1, line);
    assert.match(problems[0]!, pattern);
    assert.match(problems[0]!, /^line 2: /);
    assert.doesNotMatch(problems[0]!, /N9qo/);
  }
});

test("encodeHtpasswdLine refuses a user name that could be a path", () => {
  const { users } = decodeHtpasswd(SHA);
  for (const name of ["", "..", "a/b", "a:b", "a b", ".a"])
    assert.throws(
      () => encodeHtpasswdLine(name, users.get("bob")!),
      (error) => error instanceof CairnError && error.code === "usage",
    );
});
