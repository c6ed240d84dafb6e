import { readSync } from "node:fs";
import { openMessage, SEAL_OVERHEAD } from "../../crypto/seal.ts";
import type { MasterKeys } from "../../crypto/seal.ts";
import { CairnError, isBadSector, toCairnError, tellsOfDamage } from "../../errors.ts";
import { MAX_PACK_SIZE } from "../../formats/restic/index-file.ts";
import {
  decodePackHeader,
  EMPTY_PACK_SIZE,
  type IndexBlob,
  type PackHeaderEntry,
  sizeInPack,
} from "../../formats/restic/pack-header.ts";
import { bindNativeLater, newArena } from "../../native.ts";
import type { Arena } from "../../native.ts";
import type { Repository } from "../repository.ts";

/** The decrypted header of a pack: its blobs and their end. */
export interface PackHeader {
  readonly blobs: IndexBlob[];
  /** Offset of the encrypted header, which is the end of the last blob. */
  readonly dataLength: number;
  /** The sealed header and its length field, as they are in the file. */
  readonly trailer: Uint8Array;
}

const MAX_HEADER = 64 * 1024 * 1024;

const nativePread = bindNativeLater(
  "int64_t pread64(int descriptor, uint64_t target, uint64_t length, int64_t offset)",
);

/** Reads up to `length` bytes at `position` of a file into an arena. Returns the number read. */
export function readAt(
  descriptor: number,
  position: number,
  length: number,
  target: Arena,
  targetOffset: number,
): number {
  let done = 0;
  while (done < length) {
    let count = nativePread()?.(descriptor, target.address + targetOffset + done, length - done, position + done) ?? -1;
    // Reading through Node also gives the error of a failed native call.
    if (count < 0)
      count = readThroughNode(
        descriptor,
        target.bytes.subarray(targetOffset + done, targetOffset + length),
        position + done,
      );
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Reads like `readAt`; returns -1 if the disk cannot read some of the bytes. */
export function readSectors(...read: Parameters<typeof readAt>): number {
  try {
    return readAt(...read);
  } catch (error) {
    const known = toCairnError(error);
    if (!isBadSector(known)) throw known;
    return -1;
  }
}

function readThroughNode(descriptor: number, target: Uint8Array, position: number): number {
  try {
    return readSync(descriptor, target, 0, target.length, position);
  } catch (error) {
    throw toCairnError(error, "reading a pack");
  }
}

function damaged(message: string): CairnError {
  return new CairnError("damaged", `pack header: ${message}`);
}

function headerLength(size: number, field: Uint8Array): number {
  if (field.length < 4) throw damaged(`the file ends before its ${size} bytes`);
  const length = new DataView(field.buffer, field.byteOffset).getUint32(0, true);
  if (length <= SEAL_OVERHEAD || length > size - 4 || length > MAX_HEADER)
    throw damaged(`length ${length} does not fit a file of ${size} bytes`);
  return length;
}

/**
 * Reads and decrypts the header of a pack of `size` bytes. Throws `damaged` if it does not fit the file or the keys.
 */
export function readPackHeader(descriptor: number, size: number, keys: MasterKeys): PackHeader {
  const field = newArena(4);
  if (size < 4 + SEAL_OVERHEAD || readAt(descriptor, size - 4, 4, field, 0) < 4)
    throw damaged(`a file of ${size} bytes is too short for one`);
  const length = headerLength(size, field.bytes);
  const trailer = newArena(length + 4);
  const dataLength = size - 4 - length;
  if (readAt(descriptor, dataLength, length + 4, trailer, 0) < length + 4)
    throw damaged(`the file is shorter than ${size} bytes`);
  const blobs = decodePackHeader(openMessage(keys, trailer.bytes.subarray(0, length)));
  const last = blobs.at(-1);
  const end = last === undefined ? 0 : last.offset + last.length;
  if (end !== dataLength) throw damaged(`states ${end} bytes of blobs, but the file has ${dataLength}`);
  return { blobs, dataLength, trailer: trailer.bytes };
}

/** Bytes of a pack with these entries: blobs, encrypted header, length field. */
export function packSizeOf(entries: readonly PackHeaderEntry[]): number {
  let size = EMPTY_PACK_SIZE;
  for (const { length, uncompressedLength } of entries) size += sizeInPack(length, uncompressedLength);
  return size;
}

/** Loads of a damaged header from a remote storage: the transfer may have damaged it. */
const MOST_LOADS = 3;

/** Loads the list of blobs from a stored pack's own header. Throws `damaged` if the header is invalid. */
export async function loadPackHeader(repository: Repository, name: string, size: number): Promise<IndexBlob[]> {
  for (let left = repository.storage.localPath === undefined ? MOST_LOADS : 1; ; left--) {
    try {
      return await loadHeader(repository, name, size);
    } catch (error) {
      if (left === 1 || toCairnError(error).code !== "damaged") throw error;
    }
  }
}

async function loadHeader({ storage, keys }: Repository, name: string, size: number): Promise<IndexBlob[]> {
  if (size < 4 + SEAL_OVERHEAD) throw damaged(`a file of ${size} bytes is too short for one`);
  // An index file that lists such a pack would be refused.
  if (size > MAX_PACK_SIZE) throw damaged(`a file of ${size} bytes is larger than a pack can be`);
  const load = (offset: number, length: number): Promise<Uint8Array> => storage.load("data", name, { offset, length });
  const length = headerLength(size, await load(size - 4, 4));
  const blobs = decodePackHeader(openMessage(keys, await load(size - 4 - length, length)));
  if (packSizeOf(blobs) !== size) throw damaged("the header does not fit the file");
  return blobs;
}

/**
 * Returns the blobs of a pack that is about to be removed; none if the file is no pack or is damaged. Returns `closed`
 * if this user may not read it.
 */
export async function headerToDrop(
  repository: Repository,
  name: string,
  size: number,
): Promise<readonly IndexBlob[] | "closed"> {
  try {
    return await loadPackHeader(repository, name, size);
  } catch (error) {
    const known = toCairnError(error);
    if (known.code === "permission") return "closed";
    if (tellsOfDamage(known)) return [];
    throw known;
  }
}
