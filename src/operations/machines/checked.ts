import { type BigIntStats, lstatSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { verifyDirectory } from "../../bundle/export-directory/directory.ts";
import { sharedFile } from "../../capture/vm/machine.ts";
import { readState, reseedsClones } from "../../capture/vm/state.ts";
import type { CallOptions } from "../../contract/words.ts";
import { advice, CairnError, line, word } from "../../errors.ts";
import { CONTENT } from "../../formats/envelope/envelope.ts";
import { type JsonObject, parseJson } from "../../formats/fields.ts";
import { filesOf, MEMORY, type SavedMachine, SIDECAR } from "../../formats/machine/machine.ts";
import { durableWrite, readSmallFile } from "../../fs/durable.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { newPacer, throttled } from "../../pacer.ts";

/** A saved machine in an export directory, whose files all match the envelope. */
export interface CheckedState {
  saved: SavedMachine;
  /** Folder of the state's files. */
  content: string;
  /** SHA-256 of its memory; empty if it has none. */
  memory: string;
  /** False: clones of its guest draw the same random numbers, because its kernel cannot notice a clone. */
  reseeds: boolean;
  /** Throws `damaged` if a file changed since it was compared. Call this after all files are copied. */
  requireUnchanged(): void;
}

/** A file that changed shortly before it was read may change again within the same tick of the file system's clock. */
const SETTLED_MS = 2000;
const KEPT_DIRECTORIES = 64;

/**
 * Compares every file of an export directory with its envelope. A file compared earlier, with the same inode, size and
 * times, is not read again: many machines are cloned from one directory. Throws as `verifyDirectory` and `readState`
 * do.
 */
export async function checkedState(
  root: string,
  from: string,
  { signal, onProgress }: CallOptions,
): Promise<CheckedState> {
  const directory = realOf(from);
  const kept = new Verified(sharedFile(root, "verified.json"), directory);
  const onFile = throttled(onProgress);
  const { kind, config, files } = await verifyDirectory(directory, {
    signal,
    onFile: (done) => onFile({ phase: "verifying", done }),
    known: kept,
  });
  if (kind !== "vm")
    throw new CairnError("usage", `${printablePath(directory)} is the export of a workspace, not of a machine`, {
      hint: advice`make a workspace of it with: ${line("clone --from-dir", "importDirectory", word("from"), word("folder"), { isClone: true })}`,
    });
  const content = join(directory, CONTENT);
  const saved = readState(content);
  if (saved.id !== config.id)
    throw new CairnError(
      "damaged",
      `the envelope of ${printablePath(directory)} names another state than the content`,
      {
        details: { field: "config.id", expected: config.id, actual: saved.id },
      },
    );
  // All files of a state must be regular files whose content was compared.
  const compared = new Map(files.map(({ name, sha256 }) => [name, sha256]));
  for (const name of [SIDECAR, ...filesOf(saved)])
    if (!compared.has(`${CONTENT}/${name}`))
      throw new CairnError("damaged", `${CONTENT}/${name} of ${printablePath(directory)} is not listed as a file`, {
        details: { path: name },
      });
  const memory = compared.get(`${CONTENT}/${MEMORY}`) ?? "";
  const ask = async (): Promise<boolean> => reseedsClones(join(content, MEMORY), newPacer(signal));
  const reseeds = !saved.hasMemory || (await kept.answer(`reseeds ${memory}`, ask));
  kept.keep();
  return { saved, content, memory, reseeds, requireUnchanged: () => kept.requireUnchanged() };
}

function realOf(from: string): string {
  try {
    return realpathSync(from);
  } catch {
    throw new CairnError("not_found", `there is no folder ${printablePath(from)}`);
  }
}

/** Files of one directory whose digests were verified, with the file system's stamps at that time. */
class Verified {
  readonly #file: string;
  readonly #directory: string;
  readonly #before: JsonObject;
  readonly #all: JsonObject;
  /** stamps of all files seen; `isKept`: the file need not be read the next time */
  readonly #seen: Record<string, { sha256: string; stamp: string; isKept: boolean }> = {};
  readonly #answers: Record<string, boolean> = {};
  #isNew = false;

  constructor(file: string, directory: string) {
    this.#file = file;
    this.#directory = directory;
    this.#all = readKept(file);
    this.#before = (this.#all[directory] ?? {}) as JsonObject;
  }

  has(name: string, sha256: string): boolean {
    const stamp = stampOf(this.#facts(name), sha256);
    const isKept = this.#before[name] === stamp;
    this.#seen[name] = { sha256, stamp, isKept };
    return isKept;
  }

  /** Notes that the file's content was read and is right. */
  isRight(name: string): void {
    const { mtimeMs, ctimeMs } = this.#facts(name);
    if (Date.now() - Math.max(Number(mtimeMs), Number(ctimeMs)) < SETTLED_MS) return;
    this.#seen[name]!.isKept = this.#isNew = true;
  }

  /** Returns the answer of `ask`, or the stored one. `question` names the content by its digest. */
  async answer(question: string, ask: () => Promise<boolean>): Promise<boolean> {
    const before = this.#before[question];
    this.#isNew ||= typeof before !== "boolean";
    return (this.#answers[question] = typeof before === "boolean" ? before : await ask());
  }

  requireUnchanged(): void {
    for (const [name, { sha256, stamp }] of Object.entries(this.#seen))
      if (stampOf(this.#facts(name), sha256) !== stamp)
        throw new CairnError("damaged", `${name} of ${printablePath(this.#directory)} changed while it was copied`);
  }

  keep(): void {
    if (!this.#isNew) return;
    const others = Object.entries(this.#all).filter(([name]) => name !== this.#directory);
    const now = Object.entries(this.#seen).flatMap(([name, { stamp, isKept }]) => (isKept ? [[name, stamp]] : []));
    const kept = Object.fromEntries([
      ...others.slice(1 - KEPT_DIRECTORIES),
      [this.#directory, { ...Object.fromEntries(now), ...this.#answers }],
    ]);
    durableWrite(this.#file, Buffer.from(JSON.stringify(kept)));
  }

  #facts(name: string): BigIntStats {
    return lstatSync(Buffer.concat([Buffer.from(`${this.#directory}/`), Buffer.from(name, "latin1")]), {
      bigint: true,
    });
  }
}

function stampOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats, sha256: string): string {
  return [dev, ino, size, mtimeNs, ctimeNs, sha256].join(" ");
}

function readKept(file: string): JsonObject {
  try {
    const bytes = readSmallFile(file, 16 << 20);
    return bytes === null ? {} : (parseJson(bytes, file) as JsonObject);
  } catch {
    // Files of an unreadable list are verified again.
    return {};
  }
}
