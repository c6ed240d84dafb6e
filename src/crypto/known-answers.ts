import { newArena } from "../native.ts";
import type { MasterKeys, Primitives } from "./contract.ts";

const COUNT = 100;

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "hex"));
}

/** Key bytes 0, 1, 2 … (`macR` clamped by whoever uses it). */
export function knownKeys(): MasterKeys {
  const bytes = Uint8Array.from({ length: 64 }, (_, index) => index);
  return { encrypt: bytes.slice(0, 32), macK: bytes.slice(32, 48), macR: bytes.slice(48, 64) };
}

/** 100 bytes 7·i + 1 sealed under `knownKeys` with this IV, whose counter carries through three bytes. */
const IV = hex("f0f1f2f3f4f5f6f7f8f9fafb00fffffe");
const EXPECTED = {
  sha256: "4303a0db0805657f94896cbe70712284dd3d74b1324a92b677b792b63b5d7538",
  ciphertext:
    "e45b45707919eab603c395950d129048c503e23c73cc8936c572fb21231d44c9a8200c45155abb38885816b9ab4a3876a585ea87b5bc8691bed939c18eb66ad52c8d288a9263a5afc349340a2308d9edecf0219de823a28b59dfdc738d2c4110920ed2de",
  mac: "3dad7d4aa948c9386ce782150936710e",
};

/** True when the implementation gives the published answers: a wrong symbol or layout must never seal anything. */
export function givesKnownAnswers(candidate: Primitives): boolean {
  const data = newArena(COUNT + 16);
  const out = newArena(64);
  const iv = newArena(16);
  for (let index = 0; index < COUNT; index++) data.bytes[index] = (7 * index + 1) & 0xff;
  candidate.sha256(data, 0, COUNT, out, 0);
  if (Buffer.from(out.bytes.subarray(0, 32)).toString("hex") !== EXPECTED.sha256) return false;
  const cipher = candidate.newCipher(knownKeys());
  iv.bytes.set(IV);
  cipher.counter(iv, 0, data, 0, data, 0, COUNT);
  if (Buffer.from(data.bytes.subarray(0, COUNT)).toString("hex") !== EXPECTED.ciphertext) return false;
  cipher.nonces(iv, 1);
  cipher.authenticate(iv, 0, data, 0, COUNT, data, COUNT);
  if (Buffer.from(data.bytes.subarray(COUNT, COUNT + 16)).toString("hex") !== EXPECTED.mac) return false;
  candidate.fillRandom(out, 0, 32);
  return out.bytes.subarray(0, 32).some((byte) => byte !== 0);
}
