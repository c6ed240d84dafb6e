import { hash } from "node:crypto";
import { CairnError } from "../errors.ts";
import { decodeDescriptor, type Descriptor, encodeDescriptor } from "../formats/descriptor.ts";
import { decodeSeal, encodeSeal, type SealFile } from "../formats/seal-file.ts";

/**
 * A descriptor as its file holds it: the last member, `checksum`, is the SHA-256 of all bytes before it, so that no
 * flipped bit passes for another message, parent or time.
 */

const HEAD = ',"checksum":"';
const TAIL = '"}\n';
const LENGTH = HEAD.length + 64 + TAIL.length;

/** What is longer is read by nobody. */
export const MAX_DESCRIPTOR_BYTES = 64 << 20;

/** Throws `unsupported` where it would be too long to be read, as with ignore files of many megabytes: {@link isTooLong}. */
export function encodeDescriptorFile(descriptor: Descriptor): Uint8Array {
  return bounded(descriptor, encodeDescriptor);
}

/** With its checksum; the text is asked for first. */
function bounded<T extends Pick<Descriptor, "rules">>(record: T, encode: (record: T) => Uint8Array): Uint8Array {
  requireLength(textOf(record));
  const bytes = withChecksum(encode(record));
  requireLength(bytes.length);
  return bytes;
}

/** The text of all ignore files, which is more than any string can be at worst. */
function textOf({ rules }: Pick<Descriptor, "rules">): number {
  return (rules.files ?? []).reduce((sum, { text }) => sum + text.length, 0);
}

function requireLength(bytes: number): void {
  if (bytes <= MAX_DESCRIPTOR_BYTES) return;
  const message = `the save point's record would have ${bytes} bytes or more, and may have ${MAX_DESCRIPTOR_BYTES}`;
  throw new CairnError("unsupported", message, {
    hint: "the contents of all ignore files (.cairnignore) are in it: make them smaller",
    details: { record_bytes: bytes },
  });
}

/** Whether it is a record that would be too long to be read. */
export function isTooLong({ details }: CairnError): boolean {
  return details?.["record_bytes"] !== undefined;
}

/** Throws `damaged`, `newer_version`. */
export function decodeDescriptorFile(bytes: Uint8Array): Descriptor {
  const { checksum: _checksum, ...descriptor } = decodeDescriptor(bytes) as Descriptor & { checksum?: unknown };
  requireChecksum(bytes);
  return descriptor;
}

/** A seal as its file holds it, with a checksum likewise. Throws as {@link encodeDescriptorFile} does. */
export function encodeSealFile(seal: SealFile): Uint8Array {
  return bounded(seal, encodeSeal);
}

/** Throws `damaged`, `newer_version`. */
export function decodeSealFile(bytes: Uint8Array): SealFile {
  const { checksum: _checksum, ...seal } = decodeSeal(bytes) as SealFile & { checksum?: unknown };
  requireChecksum(bytes);
  return seal;
}

/** A JSON object's bytes with the checksum as one more member. */
function withChecksum(bytes: Uint8Array): Uint8Array {
  const body = Buffer.from(bytes.subarray(0, bytes.length - 2));
  return Buffer.concat([body, Buffer.from(`${HEAD}${checksumOf(body)}${TAIL}`)]);
}

function requireChecksum(bytes: Uint8Array): void {
  const length = Math.max(bytes.length - LENGTH, 0);
  const found = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1", length);
  if (found !== `${HEAD}${checksumOf(bytes.subarray(0, length))}${TAIL}`)
    throw new CairnError("damaged", "its checksum is not that of its bytes");
}

function checksumOf(body: Uint8Array): string {
  return hash("sha256", body, "hex");
}
