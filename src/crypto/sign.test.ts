import assert from "node:assert/strict";
import { test } from "node:test";
import { isSignedBy, newSigningKey, signBytes, signingKeyOf } from "./sign.ts";

test("isSignedBy accepts a signature only for the signed bytes and the signing key", () => {
  const key = newSigningKey();
  const bytes = Buffer.from("what was proven");
  const signature = signBytes(key, bytes);
  assert.equal(isSignedBy(key.publicKey, bytes, signature), true);
  assert.equal(isSignedBy(newSigningKey().publicKey, bytes, signature), false);
  assert.equal(isSignedBy(key.publicKey, Buffer.from("what was proved"), signature), false);
  assert.equal(isSignedBy(key.publicKey, bytes, signature.subarray(1)), false);
  assert.equal(isSignedBy(new Uint8Array(31), bytes, signature), false);
  assert.deepEqual(signingKeyOf(key.secret).publicKey, key.publicKey);
});

test("ed25519 keys and signatures equal the vectors of RFC 8032", () => {
  const secret = Buffer.from("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "hex");
  const key = signingKeyOf(secret);
  const publicKey = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
  assert.equal(Buffer.from(key.publicKey).toString("hex"), publicKey);
  assert.match(Buffer.from(signBytes(key, new Uint8Array(0))).toString("hex"), /^e5564300c360ac729086e2cc806e828a/);
});
