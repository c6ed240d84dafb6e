import { mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sha256 } from "../crypto/hash.ts";
import { newMasterKeys } from "../crypto/key-derivation.ts";
import type { MasterKeys } from "../crypto/seal.ts";
import { decodePackHeader } from "../formats/restic/pack-header.ts";
import { newArena } from "../native.ts";
import { BlobReader } from "./packs/blob-reader.ts";
import type { BlobPlace } from "./packs/blob-reader.ts";
import { PackWriter } from "./packs/pack-writer.ts";
import type { FinishedPack, PackWriterOptions } from "./packs/pack-writer.ts";

export type NamedPlace = BlobPlace & Required<Pick<BlobPlace, "id">>;

/** Packs in a scratch folder for the tests of this directory. */
export interface TestPacks {
  readonly directory: string;
  readonly keys: MasterKeys;
  readonly packs: FinishedPack[];
  writer(options?: Partial<PackWriterOptions>): PackWriter;
  reader(): BlobReader;
  /** Returns the places of the blobs of all finished packs, in file order. */
  places(): NamedPlace[];
  [Symbol.dispose](): void;
}

export function testPacks(parent = tmpdir()): TestPacks {
  const directory = mkdtempSync(join(parent, "cairn-packs-"));
  const keys = newMasterKeys();
  const packs: FinishedPack[] = [];
  return {
    directory,
    keys,
    packs,
    writer: (options = {}) =>
      new PackWriter({ type: "data", keys, directory, onPack: (pack) => void packs.push(pack), ...options }),
    reader: () => new BlobReader({ keys, openPack: (name) => openSync(pathOf(packs, name), "r") }),
    places: () => packs.flatMap((pack) => decodePackHeader(pack.header).map((blob) => ({ ...blob, pack: pack.id }))),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

function pathOf(packs: readonly FinishedPack[], name: string): string {
  const pack = packs.find(({ id }) => Buffer.from(id).toString("hex") === name);
  if (pack === undefined) throw new Error(`no pack ${name}`);
  return pack.path;
}

/** Adds one blob and returns its id. */
export function addBlob(writer: PackWriter, plain: Uint8Array): Uint8Array {
  const arena = newArena(plain.length + 3);
  arena.bytes.set(plain, 3);
  const id = sha256(plain);
  writer.add(id, arena, 3, plain.length);
  return id;
}

/** Bytes that zstd shrinks: numbered words. */
export function textBlob(number: number, length: number): Buffer {
  let text = "";
  for (let word = number; text.length < length; word++) text += `word ${word * 7919} and `;
  return Buffer.from(text.slice(0, length), "latin1");
}

/** Bytes that zstd does not shrink. */
export function noiseBlob(number: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (number * 2_654_435_761 + 1) >>> 0;
  for (let index = 0; index < length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = state >>> 11;
  }
  return bytes;
}
