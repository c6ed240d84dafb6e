import { hash } from "node:crypto";
import { CairnError } from "../errors.ts";
import { decodeDescriptor, type Descriptor, encodeDescriptor } from "../formats/descriptor.ts";

/**
 * A descriptor as its file holds it: the last member, `checksum`, is the SHA-256 of all bytes before it, so that no
 * flipped bit passes for another message, parent or time.
 */

const HEAD = ',"checksum":"';
const TAIL = '"}\n';
const LENGTH = HEAD.length + 64 + TAIL.length;

export function encodeDescriptorFile(descriptor: Descriptor): Uint8Array {
  const bytes = encodeDescriptor(descriptor);
  const body = Buffer.from(bytes.subarray(0, bytes.length - 2));
  return Buffer.concat([body, Buffer.from(`${HEAD}${checksumOf(body)}${TAIL}`)]);
}

/** Throws `damaged`, `newer_version`. */
export function decodeDescriptorFile(bytes: Uint8Array): Descriptor {
  const { checksum: _checksum, ...descriptor } = decodeDescriptor(bytes) as Descriptor & { checksum?: unknown };
  const body = bytes.subarray(0, Math.max(bytes.length - LENGTH, 0));
  const wanted = `${HEAD}${checksumOf(body)}${TAIL}`;
  if (Buffer.from(bytes.subarray(body.length)).toString("latin1") === wanted) return descriptor;
  throw new CairnError("damaged", "its checksum is not that of its bytes");
}

function checksumOf(body: Uint8Array): string {
  return hash("sha256", body, "hex");
}
