import assert from "node:assert/strict";
import { createHmac, randomBytes } from "node:crypto";
import { test } from "node:test";
import { fingerprintOf, KnownHosts, knownHostName, keyTypeOf, matchesPatterns } from "./ssh-known-hosts.ts";

/** A public key's bytes, of no use but to be compared. */
function key(type: string, seed: number): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(type.length);
  return Buffer.concat([length, Buffer.from(type), Buffer.alloc(36, seed)]);
}

function line(hosts: string, of: Buffer): string {
  return `${hosts} ${keyTypeOf(of)} ${of.toString("base64")} a comment`;
}

const [ONE, TWO] = [key("ssh-ed25519", 1), key("ssh-ed25519", 2)];
const RSA = key("ssh-rsa", 3);

test("a known host's key is known, another one changed, and an unknown host's unknown", () => {
  const hosts = KnownHosts.parse(`# notes\n\n${line("one.example,10.0.0.1", ONE)}\r\n`, "file");
  assert.equal(hosts.check("one.example", ONE).verdict, "known");
  assert.equal(hosts.check("10.0.0.1", ONE).verdict, "known");
  assert.deepEqual(hosts.check("one.example", TWO), {
    verdict: "changed",
    place: "file:3",
    fingerprint: fingerprintOf(ONE),
  });
  assert.equal(hosts.check("one.example", RSA).verdict, "changed");
  assert.equal(hosts.check("two.example", ONE).verdict, "unknown");
  assert.equal(hosts.check("one.example.org", ONE).verdict, "unknown");
});

test("a port other than 22 is part of the name", () => {
  assert.equal(knownHostName("One.Example", 22), "one.example");
  assert.equal(knownHostName("one.example", 2222), "[one.example]:2222");
  const hosts = KnownHosts.parse(`${line("[one.example]:2222", ONE)}\n${line("ONE.example", TWO)}`);
  assert.equal(hosts.check(knownHostName("one.example", 2222), ONE).verdict, "known");
  assert.equal(hosts.check(knownHostName("one.example", 2222), TWO).verdict, "changed");
  assert.equal(hosts.check(knownHostName("ONE.EXAMPLE", 22), TWO).verdict, "known");
});

test("hashed names are recognised and give nothing else away", () => {
  const salt = randomBytes(20);
  const hash = createHmac("sha1", salt).update("[one.example]:2222").digest("base64");
  const hosts = KnownHosts.parse(line(`|1|${salt.toString("base64")}|${hash}`, ONE));
  assert.equal(hosts.check("[one.example]:2222", ONE).verdict, "known");
  assert.equal(hosts.check("one.example", ONE).verdict, "unknown");
  assert.equal(KnownHosts.parse(line("|1|", ONE)).check("|1|", ONE).verdict, "unknown");
});

test("patterns fit by * and ?, and a negated one takes the host out", () => {
  const hosts = KnownHosts.parse(line("*.example,!bad.example,host?", ONE));
  assert.equal(hosts.check("a.example", ONE).verdict, "known");
  assert.equal(hosts.check("host7", ONE).verdict, "known");
  assert.equal(hosts.check("bad.example", ONE).verdict, "unknown");
  assert.equal(hosts.check("host77", ONE).verdict, "unknown");
  assert.equal(matchesPatterns(["!a"], "b"), false);
  assert.equal(matchesPatterns(["*a*a*a*a*b"], "a".repeat(5000)), false);
  assert.equal(matchesPatterns(["a*?c"], "abc"), true);
});

test("a revoked key is revoked wherever it is noted as good", () => {
  const hosts = KnownHosts.parse(
    `${line("one.example", ONE)}\n@revoked ${line("*", ONE)}\n${line("one.example", TWO)}`,
  );
  assert.equal(hosts.check("one.example", ONE).verdict, "revoked");
  assert.equal(hosts.check("one.example", TWO).verdict, "known");
  assert.equal(KnownHosts.parse(`@revoked ${line("*", ONE)}`).check("one.example", TWO).verdict, "unknown");
});

test("lines that are not understood make no key known", () => {
  const text = [
    `@cert-authority ${line("*", ONE)}`,
    `@something ${line("*", ONE)}`,
    "* ssh-ed25519",
    "* ssh-ed25519 AAAA",
    `* ssh-rsa ${ONE.toString("base64")}`,
    "@revoked",
  ].join("\n");
  assert.equal(KnownHosts.parse(text).check("one.example", ONE).verdict, "unknown");
  assert.equal(keyTypeOf(Buffer.from([255, 255, 255, 255, 65])), "");
  assert.equal(keyTypeOf(Buffer.alloc(2)), "");
});

test("the types of a host's keys are those of its lines, each once", () => {
  const hosts = KnownHosts.parse(
    [line("a,b", RSA), line("a", ONE), line("a", TWO), `@revoked ${line("b", ONE)}`].join("\n"),
  );
  assert.deepEqual(hosts.keyTypes("a"), ["ssh-rsa", "ssh-ed25519"]);
  assert.deepEqual(hosts.keyTypes("b"), ["ssh-rsa"]);
  assert.deepEqual(hosts.keyTypes("c"), []);
});

test("files that are not there note nothing", () => {
  assert.equal(KnownHosts.read(["/nonexistent/known_hosts"]).check("a", ONE).verdict, "unknown");
});
