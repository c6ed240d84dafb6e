import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import {
  CONTENT,
  decodeEnvelope,
  type Envelope,
  ENVELOPE,
  type EnvelopeEntry,
  type EnvelopeFile,
} from "../../formats/envelope/envelope.ts";
import { digestOfFile } from "../../fs/file-digest.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { newPacer } from "../../pacer.ts";

/** An export directory: lists its files and compares them with its envelope. */

interface DirectoryCall {
  signal?: AbortSignal | undefined;
  onFile?: ((done: number) => void) | undefined;
}

/** Files that need not be read, because they were read before and have not changed. */
interface KnownFiles {
  has(file: Buffer, sha256: string): Promise<boolean>;
  /** Records that a file was read and matches. */
  isRight(file: Buffer): void;
}

function placeOf(root: string, name: string): Buffer {
  return Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, "latin1")]);
}

/** Everything below the content's folder, by name; files are read for their hashes. */
export async function describeContent(
  root: string,
  { signal, onFile }: DirectoryCall,
): Promise<Pick<Envelope, "files" | "entries">> {
  const pace = newPacer(signal);
  const [files, entries]: [EnvelopeFile[], EnvelopeEntry[]] = [[], []];
  for (const { name, kind } of namesBelow(root, CONTENT)) {
    await pace();
    if (kind !== "file") {
      const target = kind === "symlink" ? readlinkSync(placeOf(root, name), "latin1") : undefined;
      entries.push({ name, kind, ...(target === undefined ? {} : { target }) });
      continue;
    }
    files.push({ name, ...(await digestOfFile(placeOf(root, name), pace)), role: "content" });
    onFile?.(files.length);
  }
  return { files, entries };
}

function* namesBelow(root: string, name: string): Generator<{ name: string; kind: EnvelopeEntry["kind"] | "file" }> {
  const names = readdirSync(placeOf(root, name), { encoding: "latin1" });
  for (const each of names.toSorted()) {
    const at = `${name}/${each}`;
    const facts = lstatSync(placeOf(root, at));
    const kind = facts.isFile()
      ? "file"
      : facts.isDirectory()
        ? "directory"
        : facts.isSymbolicLink()
          ? "symlink"
          : facts.isFIFO()
            ? "fifo"
            : facts.isSocket()
              ? "socket"
              : "device";
    yield { name: at, kind };
    if (kind === "directory") yield* namesBelow(root, at);
  }
}

/**
 * Reads all files of a directory and compares them with its envelope, which it returns. Throws `not_found` if there is
 * no envelope, `damaged` with the name of a missing, additional or changed entry; `newer_version`.
 */
export async function verifyDirectory(
  root: string,
  { signal, onFile, known }: DirectoryCall & { known?: KnownFiles } = {},
): Promise<Envelope> {
  const envelope = readEnvelope(root);
  const bad = (name: string, what: string, details: object = {}): CairnError => {
    const shown = printablePath(Buffer.from(name, "latin1"));
    return new CairnError("damaged", `${shown} of ${printablePath(root)} ${what}`, {
      details: { path: shown, ...details },
    });
  };
  const listed = new Map<string, EnvelopeFile | EnvelopeEntry>();
  for (const each of [...envelope.files, ...envelope.entries]) {
    if (!each.name.startsWith(`${CONTENT}/`)) throw bad(each.name, "lies outside of the content");
    if (listed.has(each.name)) throw bad(each.name, "is listed twice");
    listed.set(each.name, each);
  }
  if (lstatSync(join(root, CONTENT), { throwIfNoEntry: false })?.isDirectory() !== true)
    throw bad(CONTENT, "is missing, or is not a folder");
  const pace = newPacer(signal);
  let done = 0;
  for (const { name, kind } of namesBelow(root, CONTENT)) {
    await pace();
    const file = placeOf(root, name);
    const wanted = listed.get(name);
    if (wanted === undefined) throw bad(name, "is not listed in the envelope");
    listed.delete(name);
    if ("kind" in wanted ? wanted.kind !== kind : kind !== "file") throw bad(name, `is a ${kind} now`);
    if ("kind" in wanted) {
      if (wanted.target !== undefined && readlinkSync(file, "latin1") !== wanted.target)
        throw bad(name, "is a link with another target");
      continue;
    }
    const { size } = lstatSync(file);
    if (size !== wanted.size)
      throw bad(name, `has ${size} bytes, but the envelope says ${wanted.size}`, {
        field: "size",
        expected: wanted.size,
        actual: size,
      });
    onFile?.(++done);
    if ((await known?.has(file, wanted.sha256)) === true) continue;
    const { sha256 } = await digestOfFile(file, pace);
    if (sha256 !== wanted.sha256)
      throw bad(name, "does not match its checksum in the envelope", {
        field: "sha256",
        expected: wanted.sha256,
        actual: sha256,
      });
    known?.isRight(file);
  }
  const [missing] = listed.keys();
  if (missing !== undefined) throw bad(missing, "is missing");
  return envelope;
}

function readEnvelope(root: string): Envelope {
  const file = join(root, ENVELOPE);
  const facts = lstatSync(root, { throwIfNoEntry: false });
  if (facts?.isDirectory() !== true) throw new CairnError("not_found", `there is no folder ${printablePath(root)}`);
  let bytes: Buffer;
  try {
    bytes = readRegular(file, { limit: 1 << 30 });
  } catch (error) {
    const failed = toCairnError(error, `read ${printablePath(file)}`);
    if (failed.code !== "not_found") throw failed;
    throw new CairnError("not_found", `${printablePath(root)} is not an export directory: ${ENVELOPE} is missing`, {
      hint: "export or copy the directory again: this file is written last, so the export or the copy was not finished",
    });
  }
  return decodeEnvelope(bytes);
}
