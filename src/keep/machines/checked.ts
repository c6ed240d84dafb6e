import { existsSync, mkdirSync, realpathSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { verifyDirectory } from "../../bundle/export-directory/directory.ts";
import { addBlob, copyFiles } from "../../capture/vm/blobs.ts";
import { blobFile, type Machine, sharedFile } from "../../capture/vm/machine.ts";
import { readState, ReseedSearch, savedIn, type State } from "../../capture/vm/state.ts";
import type { Client } from "../../contract/index.ts";
import type { CallOptions } from "../../contract/words.ts";
import { advice, CairnError, line, throwIfAborted, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { CONTENT } from "../../formats/envelope/envelope.ts";
import { BLOBS, describedBy, filesOf, MEMORY, SIDECAR } from "../../formats/machine/machine.ts";
import { plural } from "../../formats/sizes.ts";
import { digestOfFile } from "../../fs/file-digest.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { newPacer, throttled } from "../../pacer.ts";
import { callOf } from "./saved-workspace.ts";
import { Verified } from "./verified.ts";

/** A saved machine, each file of which has its digest. */
export interface CheckedState extends State {
  /** False: clones of its guest draw the same random numbers, because its kernel cannot notice a clone. */
  reseeds: boolean;
  /** Throws `damaged` if a file changed since it was compared. Call this after all files are copied. */
  requireUnchanged(): void;
}

interface Check extends CallOptions {
  /** False: the machine gets a memory file of its own. */
  mapsMemory: boolean;
}

/**
 * Compares every file of an export directory with its envelope. A file compared earlier, with the same inode, size and
 * times, is not read again: many machines are cloned from one directory. Throws as `verifyDirectory` and `readState`.
 */
export async function checkedDirectory(root: string, from: string, check: Check): Promise<CheckedState> {
  const { signal, onProgress } = check;
  const directory = realOf(from);
  const content = join(directory, CONTENT);
  const fileOf = (name: string): string => join(content, name);
  const shared = new SharedFiles(root, check);
  const { known } = shared;
  const onFile = throttled(onProgress);
  const { kind, config, files } = await verifyDirectory(directory, {
    signal,
    onFile: (done) => onFile({ phase: "verifying", done }),
    known: {
      has: async (file, sha256) =>
        known.has(file, sha256) || shared.copies(relative(content, file.toString()), file, sha256),
      isRight: (file) => known.isRight(file),
    },
  });
  if (kind !== "vm")
    throw new CairnError("usage", `${printablePath(directory)} is the export of a workspace, not of a machine`, {
      hint: advice`make a workspace of it with: ${line("clone --from", "importDirectory", word("from"), word("folder"), { isClone: true })}`,
    });
  const saved = readState(fileOf);
  for (const [field, actual] of Object.entries(describedBy(saved))) {
    const expected = config[field];
    // Other programs write some of the fields.
    if (expected === undefined || isDeepStrictEqual(expected, actual)) continue;
    throw new CairnError(
      "damaged",
      `the envelope of ${printablePath(directory)} describes another state than the content: ${field} is ${JSON.stringify(expected)}, and ${JSON.stringify(actual)} in the content`,
      { details: { field: `config.${field}`, expected, actual } },
    );
  }
  // All files of a state must be regular files whose content was compared.
  const compared = new Map(files.map(({ name, sha256 }) => [name, sha256]));
  for (const name of [SIDECAR, ...filesOf(saved)])
    if (!compared.has(`${CONTENT}/${name}`))
      throw new CairnError("damaged", `${CONTENT}/${name} of ${printablePath(directory)} is not listed as a file`, {
        details: { path: name },
      });
  const memory = compared.get(`${CONTENT}/${MEMORY}`) ?? null;
  const state = { saved, fileOf, isTemporary: false };
  await shared.addAll(state, memory);
  return await checked(shared, memory, state);
}

function realOf(from: string): string {
  try {
    return realpathSync(from);
  } catch {
    throw new CairnError("not_found", `there is no folder ${printablePath(from)}`);
  }
}

/**
 * Checks a state whose files a restore of a backup wrote into a folder and proved. The files are moved out of the
 * folder. Throws as `readState`.
 */
export async function checkedFolder(root: string, from: string, check: Check): Promise<CheckedState> {
  const folder = realOf(from);
  const fileOf = (name: string): string => join(folder, name);
  const shared = new SharedFiles(root, check);
  const saved = readState(fileOf);
  const memory = saved.hasMemory ? await shared.digest(fileOf(MEMORY)) : null;
  const state = { saved, fileOf, isTemporary: true };
  await shared.addAll(state, memory);
  return await checked(shared, memory, state);
}

/**
 * Checks a machine's state at a save point, and takes only those files out of the store that are neither blobs nor in
 * the folder of the last saved state. `to`: a new folder for them. The digests of the point's files are known once one
 * machine was made of it. Throws `incomplete`, `damaged`, and the errors of `readState`.
 */
export async function checkedPoint(
  { root, saved: folder }: Machine,
  client: Client,
  { point, to, ...check }: Check & { point: string; to: string },
): Promise<CheckedState> {
  const shared = new SharedFiles(root, check);
  const { known } = shared;
  const { save_point_id: target, payload_root_hash: state } = await client.resolve(point);
  const fetch = async (into: string, paths: string[]): Promise<void> => {
    const { left_out: leftOut } = await client.restore({ ...callOf(check), target, to: join(to, into), paths });
    if (leftOut.length > 0)
      throw new CairnError("incomplete", `${plural(leftOut.length, "file")} of the saved machine could not be read`, {
        details: { left_out: leftOut },
      });
  };
  mkdirSync(join(to, "copied"), { recursive: true, mode: 0o700 });
  let digests = known.answer(`state ${state}`) as Record<string, string | null> | undefined;
  if (digests === undefined) {
    await fetch("described", [SIDECAR]);
    const names = [SIDECAR, ...filesOf(savedIn(join(to, "described", SIDECAR))!)];
    digests = Object.fromEntries(names.map((name) => [name, shared.digestOf(name, null)]));
  }
  const files: Record<string, string> = {};
  for (const [name, digest] of Object.entries(digests)) {
    const file = digest === null ? null : await shared.take(name, digest, { folder, into: join(to, "copied") });
    if (file !== null) files[name] = file;
  }
  const missing = Object.keys(digests).filter((name) => !(name in files));
  if (missing.length > 0) await fetch("stored", missing);
  for (const name of missing) {
    const file = join(to, "stored", name);
    const wanted = digests[name] ?? undefined;
    const isShared = shared.isShared(name);
    const digest = isShared ? await shared.add(file, { digest: wanted, moves: true }) : await shared.digest(file);
    if (wanted !== undefined && digest !== wanted)
      throw new CairnError("damaged", `${name} of the save point ${target} has another content than before`, {
        details: { path: name, expected: wanted, actual: digest },
      });
    digests[name] = digest;
    files[name] = isShared ? blobFile(root, digest) : file;
  }
  const fileOf = (name: string): string => files[name] ?? join(to, name);
  const saved = readState(fileOf);
  const sealed = state ?? (await client.resolve(target)).payload_root_hash;
  if (missing.length > 0 && sealed !== null) known.learn(`state ${sealed}`, digests);
  return await checked(shared, digests[MEMORY] ?? null, { saved, fileOf, isTemporary: true });
}

async function checked(
  shared: SharedFiles,
  memory: string | null,
  state: Omit<State, "mapped">,
): Promise<CheckedState> {
  const { known } = shared;
  const reseeds = memory === null || (await shared.reseeds(memory, state.fileOf(MEMORY)));
  known.keep();
  failpoint("vm-state.checked");
  return {
    ...state,
    mapped: shared.digestOf(MEMORY, memory),
    reseeds,
    requireUnchanged: () => known.requireUnchanged(),
  };
}

/** The blobs of a folder of machines, each of which is verified before a call uses it. */
class SharedFiles {
  readonly known: Verified;
  readonly #root: string;
  readonly #check: Check;

  constructor(root: string, check: Check) {
    this.known = new Verified(sharedFile(root, "verified.json"));
    this.#root = root;
    this.#check = check;
  }

  isShared(name: string): boolean {
    return name.startsWith(`${BLOBS}/`) || (name === MEMORY && this.#check.mapsMemory);
  }

  /** Returns the digest of the blob that a state's file is; null for a file that each machine has for itself. */
  digestOf(name: string, memory: string | null): string | null {
    if (!this.isShared(name)) return null;
    return name === MEMORY ? memory : name.slice(BLOBS.length + 1);
  }

  async digest(file: string, look?: (piece: Buffer) => void): Promise<string> {
    return (await digestOfFile(file, newPacer(this.#check.signal), look)).sha256;
  }

  /** Tells whether a guest with this memory draws fresh randomness as a clone: known, or found in the file. */
  async reseeds(memory: string, file: string): Promise<boolean> {
    const known = this.known.answer(`reseeds ${memory}`);
    if (typeof known === "boolean") return known;
    const search = new ReseedSearch();
    await this.digest(file, search.look);
    this.known.learn(`reseeds ${memory}`, search.found);
    return search.found;
  }

  /**
   * Verifies a shared file by its copy among the blobs, so that it is read once. False if it is no shared file, its
   * blob is there already, or the copy has another digest.
   */
  async copies(name: string, file: Buffer, digest: string): Promise<boolean> {
    if (this.digestOf(name, digest) !== digest || (await this.has(digest))) return false;
    try {
      await this.add(file.toString("utf8"), { digest });
    } catch (error) {
      if (error instanceof CairnError && error.code === "damaged") return false;
      throw error;
    }
    this.known.isRight(file);
    return true;
  }

  /** True if the blob is there, and its content is right. */
  async has(digest: string): Promise<boolean> {
    const blob = blobFile(this.#root, digest);
    if (!existsSync(blob)) return false;
    if (this.known.has(blob, digest)) return true;
    if ((await this.digest(blob)) === digest) {
      this.known.isRight(blob);
      return true;
    }
    this.#check.onWarning?.(`${printablePath(blob)} is damaged, and is written again`);
    return false;
  }

  /** Makes each shared file of a state a blob, unless the blob is there. `memory`: the digest of the state's memory. */
  async addAll({ saved, fileOf, isTemporary: moves }: Omit<State, "mapped">, memory: string | null): Promise<void> {
    for (const name of filesOf(saved)) {
      const digest = this.digestOf(name, memory);
      if (digest !== null && !(await this.has(digest))) await this.add(fileOf(name), { digest, moves });
    }
  }

  /** Makes a file a blob, whose digest is returned. Throws as `addBlob` does. */
  async add(file: string, options: { digest?: string | undefined; moves?: boolean }): Promise<string> {
    const search = new ReseedSearch();
    const look = basename(file) === MEMORY ? search.look : undefined;
    const digest = await addBlob(this.#root, file, { ...options, look, signal: this.#check.signal });
    if (look !== undefined) this.known.learn(`reseeds ${digest}`, search.found);
    const blob = blobFile(this.#root, digest);
    this.known.has(blob, digest);
    this.known.isRight(blob);
    return digest;
  }

  /** Finds a file by its digest among the blobs, or copies it from a folder. Returns null if it is in neither. */
  async take(name: string, digest: string, { folder, into }: { folder: string; into: string }): Promise<string | null> {
    const isShared = this.isShared(name);
    if (isShared && (await this.has(digest))) return blobFile(this.#root, digest);
    const [source, copy] = [join(folder, name), join(into, name)];
    if (!existsSync(source)) return null;
    try {
      if (isShared) return blobFile(this.#root, await this.add(source, { digest }));
      const isCopied = await this.known.copies(source, digest, {
        copy: async () => copyFiles([source], into, { signal: this.#check.signal }),
        isEqual: async () => (await this.digest(copy)) === digest,
      });
      return isCopied ? copy : null;
    } catch {
      // Another process may replace the folder's files meanwhile. The store has the content too.
      throwIfAborted(this.#check.signal);
      return null;
    }
  }
}
