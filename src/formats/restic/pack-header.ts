import { CairnError } from "../../errors.ts";
import { ByteReader, type ByteWriter } from "../bytes.ts";

/** The plain header of a pack: its blobs in file order, back to back. */

export type BlobType = "data" | "tree";

export interface PackHeaderEntry {
  /** SHA-256 of the plain content, 32 bytes. */
  id: Uint8Array;
  type: BlobType;
  /** Stored length, including the seal. */
  length: number;
  /** 0 if the blob is not compressed. */
  uncompressedLength: number;
}

export interface IndexBlob extends PackHeaderEntry {
  /** Offset of the encrypted blob in the pack. */
  offset: number;
}

export const PLAIN_ENTRY_SIZE = 37;
export const COMPRESSED_ENTRY_SIZE = 41;
/** Bytes of IV and MAC: the least length of a sealed blob. */
const SEAL_SIZE = 32;
/** Bytes of a pack file without blobs: its sealed header and the length field. */
export const EMPTY_PACK_SIZE = SEAL_SIZE + 4;

/** Returns the bytes that a blob adds to a pack file: its own, and its header entry. */
export function sizeInPack(length: number, uncompressedLength: number): number {
  return length + (uncompressedLength > 0 ? COMPRESSED_ENTRY_SIZE : PLAIN_ENTRY_SIZE);
}

/** Appends one entry: 37 bytes for a plain blob, 41 for a compressed one. */
export function encodeHeaderEntry(w: ByteWriter, entry: PackHeaderEntry): void {
  const compressed = entry.uncompressedLength > 0;
  w.u8((entry.type === "tree" ? 1 : 0) + (compressed ? 2 : 0));
  w.u32(entry.length);
  if (compressed) w.u32(entry.uncompressedLength);
  w.append(entry.id);
}

/** Returns the blobs of a decrypted header with their offsets. Ids are views of `plain`. Throws `damaged`. */
export function decodePackHeader(plain: Uint8Array): IndexBlob[] {
  const reader = new ByteReader(plain, "pack header");
  const blobs: IndexBlob[] = [];
  let offset = 0;
  while (reader.remaining > 0) {
    const kind = reader.u8();
    if (kind > 3) throw new CairnError("damaged", `pack header: blob ${blobs.length} has unknown type ${kind}`);
    const length = reader.u32();
    const uncompressedLength = kind >= 2 ? reader.u32() : 0;
    const id = reader.take(32);
    if (length < SEAL_SIZE || (kind >= 2 && uncompressedLength === 0)) {
      throw new CairnError("damaged", `pack header: blob ${blobs.length} has an impossible length`);
    }
    blobs.push({ id, type: (kind & 1) === 1 ? "tree" : "data", offset, length, uncompressedLength });
    offset += length;
  }
  return blobs;
}

/** Returns the uncompressed bytes of the blobs in a header that this process has written. */
export function plainBytesOf(plain: Uint8Array): number {
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  let bytes = 0;
  for (let at = 0; at < plain.length;) {
    const isCompressed = plain[at]! >= 2;
    bytes += isCompressed ? view.getUint32(at + 5, true) : view.getUint32(at + 1, true) - SEAL_SIZE;
    at += isCompressed ? COMPRESSED_ENTRY_SIZE : PLAIN_ENTRY_SIZE;
  }
  return bytes;
}
