import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, realpathSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { advice, CairnError, call, line, throwIfAborted, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { Fields, parseJson } from "../formats/fields.ts";
import { durableWrite } from "../fs/durable.ts";
import { acquireLock, type Lock } from "../fs/lock.ts";
import { readRegular } from "../fs/regular-file.ts";
import { printablePath, shellPath } from "../fs/paths/safe-path.ts";
import { removeUnfinished } from "../fs/work-directory.ts";
import { newPacer } from "../pacer.ts";
import type { ContextChange } from "../formats/records/unfinished.ts";
import { ChangePlace } from "./change.ts";
import { EMBEDDED_DIMENSIONS, EMBEDDED_MODEL, type Embedder, type EmbeddingConfig } from "./embedding.ts";
import { ContextIndex, type IndexRow, type ReadRow } from "./index-database.ts";
import { findModel, openEmbedder } from "./open-embedder.ts";
import { readStagedRecords } from "./staged-records.ts";
import { beginningOf, excerptOf, factsAt, fileOf, levelOf, readHead, textToEmbed } from "./tree.ts";
import { nameOf, toUri } from "./uri.ts";

export const CONTROL = ".context";
const VERSION = 1;
/** Rows that are read and given vectors in one transaction. */
const BATCH = 64;
const LOCK_MS = 10_000;
/** Source of a row whose text came from a bundle's records. */
export const NO_FILE = "none";

interface Filled {
  indexed: number;
  vectors: number;
}

export interface StoreCall {
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number) => void) | undefined;
}

/** A context store: files below a folder, an index beside them, one writer at a time. */
export class ContextStore implements AsyncDisposable {
  readonly folder: string;
  readonly embedding: EmbeddingConfig;
  readonly index: ContextIndex;
  readonly #control: string;
  readonly #changes: ChangePlace;
  /** Milliseconds to wait for other processes. */
  readonly lockMs: number;
  #embedder: Embedder | null | undefined;

  private constructor(folder: string, embedding: EmbeddingConfig, lockMs: number) {
    this.lockMs = lockMs;
    this.folder = folder;
    this.embedding = embedding;
    this.#control = join(folder, CONTROL);
    this.#changes = new ChangePlace(folder, this.#control);
    this.index = ContextIndex.open(
      join(this.#control, "index.db"),
      embedding.dimensions === 0 ? null : embedding.dimensions,
    );
  }

  /** Makes a store of a folder, and the folder if it is absent. Throws `already_exists`. */
  static async init(folder: string, embedding: EmbeddingConfig): Promise<ContextStore> {
    const root = resolve(folder);
    try {
      mkdirSync(root, { recursive: true });
      mkdirSync(join(root, CONTROL), { mode: 0o700 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST")
        throw toCairnError(error, `make a context store of ${printablePath(root)}`);
    }
    removeUnfinished(join(root, CONTROL));
    // Uploads and locks are not part of the store's content. A repeat of a killed call ends at an existing store.json, so
    // store.json comes last.
    const ignore = join(root, CONTROL, ".cairnignore");
    if (!existsSync(ignore)) durableWrite(ignore, Buffer.from("/uploads/\n/lock*\n"), { mode: 0o644 });
    const file = join(root, CONTROL, "store.json");
    const text = `${JSON.stringify({ version: VERSION, id: randomUUID(), embedding }, null, 2)}\n`;
    try {
      durableWrite(file, Buffer.from(text), { exclusive: true, mode: 0o644 });
    } catch (error) {
      if (error instanceof CairnError && error.code === "already_exists")
        throw new CairnError("already_exists", `${printablePath(root)} is a context store already`, {
          hint: advice`see ${call(`-C ${shellPath(root)} context ls`, "listContext", printablePath(root))}; to make another store, name another folder`,
        });
      throw error;
    }
    return await ContextStore.open(root);
  }

  /** The store whose folder is at or above a place; first carries out a committed change. Throws `not_found`, `damaged`, `newer_version`. */
  static async open(place: string, lockMs: number = LOCK_MS): Promise<ContextStore> {
    const folder = folderAbove(place);
    const store = new ContextStore(folder, readConfig(join(folder, CONTROL, "store.json")), lockMs);
    try {
      if (store.#changes.isDecided) await store.writing(async () => undefined);
    } catch {
      // Readers do not need the change; a writer gets the error again.
    }
    return store;
  }

  /** Runs work that changes the store, under an exclusive lock. */
  async writing<T>(work: (change: ChangePlace) => Promise<T>, { signal }: StoreCall = {}): Promise<T> {
    await using _lock = await this.#lock({ purpose: "change the context store", signal });
    await this.#changes.recover((plan) => this.#renewAgain(plan));
    return await work(this.#changes);
  }

  async #lock(options: { purpose: string; shared?: boolean; signal: AbortSignal | undefined }): Promise<Lock> {
    const until = performance.now() + this.lockMs;
    // Readers pass the first lock. A writer keeps it while it waits, so that readers that come later wait behind it.
    using _turn = await acquireLock(join(this.#control, "lock.turn"), { ...options, timeoutMs: this.lockMs });
    const timeoutMs = Math.max(0, until - performance.now());
    return await acquireLock(join(this.#control, "lock"), { ...options, timeoutMs });
  }

  /** Runs work that reads files and index together, under a shared lock. */
  async reading<T>(work: () => Promise<T>, { signal }: StoreCall = {}): Promise<T> {
    for (;;) {
      if (this.#changes.isDecided) await this.writing(async () => undefined, { signal });
      await using _lock = await this.#lock({ purpose: "read the context store", shared: true, signal });
      if (!this.#changes.isDecided) return await work();
    }
  }

  /** The index is derived from the files: if it cannot be renewed now, `check` lists its gaps. */
  #renewAgain(plan: ContextChange): void {
    try {
      this.#renew(plan);
    } catch (error) {
      const { code } = toCairnError(error);
      if (code === "no_space" || code === "busy" || code === "io") throw error;
    }
  }

  /** Commits a staged change, with its part of the index. */
  async commit(plan: ContextChange): Promise<void> {
    await this.#changes.commit(plan, (decided) => this.#renew(decided));
  }

  #renew(plan: ContextChange): void {
    const now = new Date().toISOString();
    this.index.transaction(() => {
      for (const path of plan.replaced) {
        this.index.removeWithin(path);
        // The file of a level belongs to its directory's row.
        const level = levelOf(path);
        if (level !== null && level.level < 2) this.index.removeLevel(level.path, level.level);
      }
      if (!plan.has_records) return;
      for (const { vector, ...row } of readStagedRecords(this.#changes)) {
        const id = this.index.put(row, now);
        if (vector !== undefined) this.index.setVector(id, vector);
      }
    });
  }

  /**
   * Reads the files of new or changed rows, for words and vectors (`lacksModel`: for words). `done` counts rows. Other
   * changes may come between. `unlessBusy`: does nothing while another process reads them. If vectors cannot be made,
   * throws after all words are in.
   */
  async fill({ signal, onProgress, unlessBusy = false }: StoreCall & { unlessBusy?: boolean } = {}): Promise<Filled> {
    const done = { indexed: 0, vectors: 0 };
    const lacking = this.lacksModel ? "words" : "any";
    if (this.index.pending(1, lacking).length === 0) return done;
    using mark = await this.#markFilling(signal);
    if (mark === null && unlessBusy) return done;
    const pace = newPacer(signal);
    let failure: CairnError | undefined;
    for (;;) {
      await pace();
      const rows = this.index.pending(BATCH, failure === undefined ? lacking : "words");
      if (rows.length === 0) break;
      const read = rows.map((row) => this.#read(row));
      const isWanting = failure === undefined && lacking === "any";
      const wanting = isWanting ? read.filter((each) => each?.row.hasVector === false) : [];
      let made: Float32Array[] = [];
      try {
        const texts = wanting.map((each) => each!.text);
        const embedder = texts.length > 0 ? await this.embedder() : null;
        if (embedder !== null) made = await embedder.embed(texts, signal);
      } catch (error) {
        throwIfAborted(signal);
        failure = toCairnError(error);
      }
      failpoint("context-index.read");
      // No lock is held meanwhile: a row that changes gets another id, and is read again.
      this.index.transaction(() => {
        for (const each of read) if (each !== null) this.index.setWords({ ...each, id: each.row.id });
        for (const [at, vector] of made.entries()) this.index.setVector(wanting[at]!.row.id, vector);
        this.index.remove(rows.filter((_, at) => read[at] === null).map(({ id }) => id));
      });
      done.indexed += rows.length;
      done.vectors += made.length;
      onProgress?.(done.indexed);
    }
    if (failure !== undefined) throw failure;
    return done;
  }

  /** Reads files that a killed command has left unread. Goes on without vectors that cannot be made. */
  async fillLeft(call: StoreCall = {}): Promise<void> {
    try {
      await this.fill({ ...call, unlessBusy: true });
    } catch (error) {
      throwIfAborted(call.signal);
      if (this.index.pending(1, "words").length > 0) throw error;
    }
  }

  /** Null while another process reads files into the index. */
  async #markFilling(signal: AbortSignal | undefined): Promise<Lock | null> {
    try {
      const path = join(this.#control, "lock.filling");
      return await acquireLock(path, { purpose: "read files into the index", timeoutMs: 0, signal });
    } catch (error) {
      if (error instanceof CairnError && error.code === "busy") return null;
      throw error;
    }
  }

  /** Null if the file has vanished. */
  #read(row: IndexRow): (Omit<ReadRow, "id"> & { row: IndexRow; text: string }) | null {
    const head = readHead(join(this.folder, fileOf(row.path, row.level)));
    // A bundle may have a directory's text only in its records.
    const own = row.isDirectory ? (row.text ?? row.abstract) : "";
    if (head === null && own === "") return null;
    const given = Buffer.from(own);
    const { words, body, source, digest } = head ?? {
      words: given,
      body: beginningOf(given),
      source: NO_FILE,
      digest: "",
    };
    // An abstract that came with the file describes the file's first content.
    const isOwnAbstract = row.isOwnAbstract && (row.digest === null || row.digest === digest);
    const abstract = isOwnAbstract ? row.abstract : excerptOf(body);
    const text = textToEmbed({ name: nameOf(row.path), abstract, body });
    return { row, abstract, isOwnAbstract, text, words, source, digest };
  }

  /**
   * True if the store uses the embedded model and its package is not installed. Searches then use words only. Existing
   * vectors stay; missing vectors are made after the package is installed.
   */
  get lacksModel(): boolean {
    return this.embedding.provider === "embedded" && this.#embedder === undefined && findModel() === null;
  }

  /** Null if the store has no vectors. Throws `unsupported` if `lacksModel`. */
  async embedder(): Promise<Embedder | null> {
    this.#embedder ??= await openEmbedder(this.embedding);
    return this.#embedder;
  }

  /** The file or directory of a path. Throws `refused` if a link on the way could lead out of the store. */
  placeOf(path: string): string {
    const names = path.split("/");
    for (let end = 1; end < names.length; end++) {
      const above = join(this.folder, ...names.slice(0, end));
      const facts = factsAt(above);
      if (facts === undefined) break;
      if (facts.isSymbolicLink())
        throw new CairnError("refused", `${printablePath(above)} is a link`, {
          hint: "a context store can hold only files and directories",
          details: { path },
        });
      if (!facts.isDirectory())
        throw new CairnError("conflict", `${toUri(names.slice(0, end).join("/"))} is a file`, {
          details: { resource: toUri(path) },
        });
    }
    return join(this.folder, path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.index[Symbol.dispose]();
    await this.#embedder?.[Symbol.asyncDispose]();
  }
}

function folderAbove(place: string): string {
  let at: string;
  try {
    at = realpathSync(place);
  } catch (error) {
    throw toCairnError(error, `open ${printablePath(place)}`);
  }
  for (; ; at = dirname(at)) {
    if (existsSync(join(at, CONTROL, "store.json"))) return at;
    if (dirname(at) === at) break;
  }
  throw new CairnError("not_found", `${printablePath(place)} is not a context store, nor in one`, {
    hint: advice`make one: ${line(`context init ${shellPath(place)}`, "initContext", printablePath(place))}; a save point becomes one file by ${call("export POINT --to FILE.tar", "exportPoint", "POINT", "FILE.tar")}`,
  });
}

const PROVIDERS = ["embedded", "openai", "none"] as const;

function readConfig(file: string): EmbeddingConfig {
  const fields = new Fields(parseJson(readRegular(file), file), file);
  const version = fields.integer("version");
  if (version > VERSION)
    throw new CairnError("newer_version", `${file} is of version ${version}`, {
      hint: "a newer Cairn has worked here: use it from now on",
    });
  const embedding = fields.object("embedding");
  const provider = PROVIDERS.find((each) => embedding.isText("provider", each));
  if (provider === undefined) throw embedding.wrong("provider", `one of ${PROVIDERS.join(", ")}`);
  const base_url = embedding.optionalText("base_url");
  const [model, dimensions] = [embedding.text("model"), embedding.integer("dimensions", 1 << 16)];
  return { provider, model, dimensions, ...(base_url === undefined ? {} : { base_url }) };
}

export const EMBEDDED: EmbeddingConfig = {
  provider: "embedded",
  model: EMBEDDED_MODEL,
  dimensions: EMBEDDED_DIMENSIONS,
};
