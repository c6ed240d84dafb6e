import { hex } from "../../formats/bytes.ts";
import { existsSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { sha256 } from "../../crypto/hash.ts";
import { openMessage } from "../../crypto/seal.ts";
import { lookIntoRepository } from "../../workspace/store/embedded-store.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { decodeConfig } from "../../formats/restic/config.ts";
import { decodeIndex } from "../../formats/restic/index-file.ts";
import { decodeKeyFile } from "../../formats/restic/key-file.ts";
import { decodeLock } from "../../formats/restic/lock-file.ts";
import { decodeSnapshot } from "../../formats/restic/snapshot.ts";
import { objectIdOf } from "../../ids.ts";
import { readPackHeader } from "../../repository/packs/pack-read.ts";
import type { Repository } from "../../repository/repository.ts";
import { unpackPlain } from "../../repository/unpacked.ts";
import type { Inspected } from "./inspected.ts";

/** A file of a repository in restic's format, whose kind follows from its path. */

export interface FileToInspect {
  path: string;
  size: number;
  /** File descriptor, open for reading. */
  descriptor: number;
  /** Reads all bytes. */
  read: () => Uint8Array;
}

const KINDS = /^(?:config|(?:(keys|locks|snapshots|index)|data\/[0-9a-f]{2}|data)\/[^/]+)$/;

/** Returns the repository that a file lies in, at most two folders up. */
function repositoryOf(path: string): string | null {
  for (let folder = dirname(path), steps = 0; steps < 3; folder = dirname(folder), steps++) {
    const inside = KINDS.test(relative(folder, path));
    if (inside && existsSync(join(folder, "config")) && existsSync(join(folder, "keys"))) return folder;
  }
  return null;
}

/** Decodes a repository's file; null for any other. Throws `damaged`, `wrong_password`, `not_found` without a key. */
export async function inspectRepositoryFile(
  file: FileToInspect,
  passwordFile: string | undefined,
): Promise<Inspected | null> {
  const root = repositoryOf(file.path);
  if (root === null) return null;
  const place = relative(root, file.path);
  const kind = place === "config" ? "config" : place.slice(0, place.indexOf("/"));
  if (kind === "keys") return inspectKey(file.read());
  const repository = await lookIntoRepository(root, passwordFile);
  if (kind === "data") return inspectPack(file, repository);
  return inspectSealed(kind, file, repository);
}

/** Shows a key file's user and its cost parameters, but not the encrypted key. */
export function inspectKey(bytes: Uint8Array): Inspected {
  const { created, username, hostname, kdf, N, r, p } = decodeKeyFile(bytes);
  return { format: "restic-key", version: null, content: { created, username, hostname, kdf, N, r, p } };
}

function inspectPack(file: FileToInspect, repository: Repository): Inspected {
  const { blobs, dataLength } = readPackHeader(file.descriptor, file.size, repository.keys);
  const content = {
    blob_bytes: dataLength,
    blobs: blobs.map(({ id, type, offset, length, uncompressedLength }) => ({
      id: hex(id),
      type,
      offset,
      length,
      uncompressed_length: uncompressedLength === 0 ? null : uncompressedLength,
    })),
  };
  return { format: "restic-pack", version: null, content };
}

function inspectSealed(kind: string, file: FileToInspect, repository: Repository): Inspected {
  const sealed = file.read();
  const name = basename(file.path);
  if (kind !== "config" && /^[0-9a-f]{64}$/.test(name) && objectIdOf(sha256(sealed)) !== name) {
    throw new CairnError("damaged", `${file.path}: its SHA-256 is not its name`, {
      hint: advice`run ${call("doctor")}`,
    });
  }
  const plain = openMessage(repository.keys, sealed);
  switch (kind) {
    case "config":
      return { format: "restic-config", version: repository.version, content: decodeConfig(plain) };
    case "index":
      return { format: "restic-index", version: null, content: indexContent(unpackPlain(plain)) };
    case "snapshots":
      return { format: "restic-snapshot", version: null, content: flat(decodeSnapshot(unpackPlain(plain))) };
    default:
      return { format: "restic-lock", version: null, content: flat(decodeLock(unpackPlain(plain))) };
  }
}

function indexContent(json: Uint8Array): unknown {
  const packs: unknown[] = [];
  const { supersedes } = decodeIndex(json, (id, blobs) => {
    packs.push({
      id: hex(id),
      blobs: blobs.map((blob) => ({
        id: hex(blob.id),
        type: blob.type,
        offset: blob.offset,
        length: blob.length,
        ...(blob.uncompressedLength === 0 ? {} : { uncompressed_length: blob.uncompressedLength }),
      })),
    });
  });
  return { supersedes, packs };
}

/** Adds fields that Cairn does not know, written by other programs. */
function flat({ extra, ...known }: { extra?: Record<string, unknown> }): unknown {
  return { ...known, ...extra };
}
