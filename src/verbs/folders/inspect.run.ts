import { CairnError, reworded, throwIfAborted, toCairnError } from "../../errors.ts";
import {
  inspectIndexCache,
  inspectOrigins,
  inspectStatCache,
  ORIGINS_MAGIC,
  STAT_CACHE_MAGIC,
} from "../../look/inspect/caches.ts";
import { cut, type Inspected } from "../../look/inspect/inspected.ts";
import { inspectMsgvault } from "../../look/inspect/msgvault.ts";
import { inspectPlain, inspectRecord } from "../../look/inspect/records.ts";
import { type FileToInspect, inspectKey, inspectRepositoryFile } from "../../look/inspect/repository-file.ts";
import { INDEX_CACHE_MAGIC } from "../../repository/index/index-cache.ts";
import { OWN_POLYNOMIAL } from "../../workspace/place/registry.ts";
import type { InspectOptions, InspectResult } from "./inspect.ts";
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { basename, resolve } from "node:path";

const HEAD_BYTES = 128;
/** No valid record, index or snapshot is larger. */
const MAX_BYTES = 256 * 1024 * 1024;

/**
 * Decodes any file that Cairn writes, or a msgvault repository. Names a file with a secret and never shows the secret.
 * Throws `unsupported` for any other file, `damaged`, `newer_version`, `not_found`.
 */
export async function inspect(path: string, options: InspectOptions): Promise<InspectResult> {
  throwIfAborted(options.signal);
  const folder = inspectMsgvault(resolve(path));
  if (folder !== null) return { path: resolve(path), bytes: 0, ...folder, content: cut(folder.content) };
  const file = openFile(resolve(path));
  try {
    const inspected = await decode(file, options);
    if (inspected === null) {
      throw new CairnError("unsupported", `${file.path} is not a file of a kind that this version of Cairn knows`, {
        hint: "if it is a file of a repository, name it at its place there: its folder tells the kind of the file",
      });
    }
    const { format, version, content } = inspected;
    return { path: file.path, format, version, bytes: file.size, content: cut(content) };
  } catch (error) {
    const failed = toCairnError(error, file.path);
    if (failed !== error || failed.message.includes(file.path)) throw failed;
    throw reworded(failed, { message: `${file.path}: ${failed.message}` });
  } finally {
    closeSync(file.descriptor);
  }
}

async function decode(file: FileToInspect, options: InspectOptions): Promise<Inspected | null> {
  const head = readStart(file, Math.min(HEAD_BYTES, file.size));
  const magic = Buffer.from(head.subarray(0, 8)).toString("latin1");
  if (magic.startsWith(STAT_CACHE_MAGIC)) return inspectStatCache(file.path, magic);
  if (magic.startsWith(ORIGINS_MAGIC)) return inspectOrigins(file.path, magic);
  if (magic.startsWith(INDEX_CACHE_MAGIC)) return inspectIndexCache(file.path, head);
  const stored = await inspectRepositoryFile(file, options.passwordFile);
  if (stored !== null) return stored;
  const secret = inspectSecret(file);
  if (secret !== null) return secret;
  const bytes = file.read();
  const name = basename(file.path);
  return inspectRecord(name, bytes) ?? keyFileOf(bytes) ?? inspectPlain(name, bytes);
}

const MAX_SECRET_BYTES = 4096;

/** Recognises a file that opens a store, or an encrypted config. Shows only its kind. */
function inspectSecret(file: FileToInspect): Inspected | null {
  if (file.size > MAX_SECRET_BYTES) return null;
  const text = Buffer.from(file.read()).toString("latin1");
  const note = "a secret: not shown";
  if (/^[0-9a-f]{64}\s*$/.test(text) || basename(file.path) === "store-password") {
    return { format: "store-password", version: null, content: { note } };
  }
  for (const name of [OWN_POLYNOMIAL, "receipt-key"])
    if (basename(file.path) === name) return { format: name, version: null, content: { note } };
  const isKey = text.startsWith("{") && text.includes('"encrypt"') && text.includes('"mac"');
  if (!isKey && basename(file.path) !== "store-key") return null;
  return { format: "store-key", version: null, content: { note } };
}

/** Decodes a key file that was copied out of its repository. */
function keyFileOf(bytes: Uint8Array): Inspected | null {
  try {
    return inspectKey(bytes);
  } catch {
    return null;
  }
}

function openFile(path: string): FileToInspect {
  let descriptor: number;
  try {
    // Opening a pipe must not wait for its writer.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT")
      throw new CairnError("not_found", `${path} is not there`, { cause: error });
    throw toCairnError(error, `open ${path}`);
  }
  const facts = fstatSync(descriptor);
  if (!facts.isFile()) {
    closeSync(descriptor);
    throw new CairnError("unsupported", `${path} is ${facts.isDirectory() ? "a folder" : "not a regular file"}`, {
      hint: "name a file",
    });
  }
  const file = { path, size: facts.size, descriptor };
  return { ...file, read: () => readStart(file, file.size) };
}

function readStart(file: Pick<FileToInspect, "path" | "descriptor">, length: number): Uint8Array {
  if (length > MAX_BYTES)
    throw new CairnError(
      "unsupported",
      `${file.path} has ${length} bytes, too many for a file that is read as a whole`,
    );
  const bytes = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const count = readSync(file.descriptor, bytes, done, length - done, done);
    if (count === 0) break;
    done += count;
  }
  return bytes.subarray(0, done);
}
