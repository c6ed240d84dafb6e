import { createHash } from "node:crypto";
import { join } from "node:path";
import { append } from "../../append.ts";
import { loadStatCache, writeStatCache } from "../../archive/cache/stat-cache.ts";
import { presentSource } from "../../archive/scan/present-source.ts";
import {
  ScanMemory,
  type ScanOptions,
  type ScanProgress,
  type ScanResult,
  scanTogether,
} from "../../archive/scan/scan.ts";
import { directoryNode, modeWithoutList, rootMetadata } from "../../archive/write/root-metadata.ts";
import { LiveDatabases } from "../../capture/sqlite/live-databases.ts";
import type { PathsBackupOptions, TransferredSize } from "../../contract/snapshots.ts";
import { type CairnError, toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { plainBytesOf } from "../../formats/restic/pack-header.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import type { FinishedPack } from "../../repository/packs/pack-writer.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import { neverPart } from "../../workspace/place/registry.ts";
import { leftOutOf, type LeftOutEntry, warnOfRules } from "../../workspace/points/left-out.ts";
import { givenPatterns } from "../../workspace/save/given-patterns.ts";
import { type Leaf, splitPath } from "../../workspace/store/snapshot-tree.ts";
import { withoutOwn } from "../open/own-folder.ts";
import type { PartToScan } from "./paths-to-scan.ts";
import type { Session } from "../open/session.ts";

/** Folder below a repository's caches: the last scan of each folder. */
const FOLDER = "scanned";
/** Matches no index, so that each id is looked up. */
const NO_EPOCH = Buffer.alloc(16);

/** Folders that were read into a repository. The leaves' names are in memory that is released with it. */
export interface ScannedParts extends AsyncDisposable {
  leaves: Leaf[];
  leftOut: LeftOutEntry[];
  files: number;
  bytes: number;
  /** of all folders, with absolute paths */
  said: Pick<ScanResult["notes"], "torn" | "captured"> &
    Pick<ReturnType<ScanResult["summarise"]>, "databases" | "ownerless">;
}

export interface ScanPartsOptions {
  session: Session;
  target: PackedBlobs;
  added: TransferredSize;
  options: PathsBackupOptions;
}

/**
 * Reads folders one after the other into a repository: packs and uploads content that the repository lacks and counts
 * it in `added`. Does not read entries that are as in the folder's last scan, but looks their blobs up in the index.
 */
export async function scanParts(parts: readonly PartToScan[], into: ScanPartsOptions): Promise<ScannedParts> {
  await using stack = new AsyncDisposableStack();
  const memory = stack.use(new ScanMemory());
  const all: Omit<ScannedParts, typeof Symbol.asyncDispose> = {
    leaves: [],
    leftOut: [],
    files: 0,
    bytes: 0,
    said: { torn: [], captured: [], databases: [], ownerless: [] },
  };
  const taking = new PackTaking(into);
  const places = parts.map((part) => join(into.session.access.cache, FOLDER, nameOfCache(part)));
  const progress = parts.map(() => ({ done: 0, bytes: 0 }));
  const scans = parts.map((part, i) => ({
    ...scanOptions(part, into, memory),
    cache: into.options.reread === true ? null : loadStatCache(places[i]!),
    store: { ...taking.store, taker: taking },
    signal: taking.signal,
    onProgress: (now: ScanProgress) => {
      if (now.phase !== "scanning") return;
      progress[i] = { done: now.done, bytes: now.bytes ?? 0 };
      const [done, bytes] = [
        progress.reduce((sum, each) => sum + each.done, 0),
        progress.reduce((sum, each) => sum + each.bytes, 0),
      ];
      into.options.onProgress?.({ ...now, done, bytes });
    },
  }));
  const results = await scanTogether(scans).catch((error: unknown) => {
    throw taking.failure ?? error;
  });
  await taking.settled();
  for (const [i, result] of results.entries()) {
    warnOfRules(result, into.options);
    add(all, parts[i]!, result);
    keep(places[i]!, result);
  }
  const held = stack.move();
  return { ...all, [Symbol.asyncDispose]: async () => held.disposeAsync() };
}

function scanOptions(
  { folder, rules }: PartToScan,
  { session, options }: ScanPartsOptions,
  memory: ScanMemory,
): ScanOptions {
  const { onWarning, crossMounts } = options;
  const exclude = rules === null ? withoutOwn(session.access, folder, options) : [];
  return {
    request: {
      root: folder,
      excludes: givenPatterns(folder, exclude, onWarning),
      rules,
      skip: neverPart(folder, { crossMounts }),
      crossMounts,
      reread: options.reread,
    },
    memory,
    cache: null,
    databases: options.databases === "copy" ? undefined : { capture: new LiveDatabases(), held: null },
    // The index decides whether the repository still has the blobs of the last scan.
    distrust: true,
    chunkerPolynomial: session.access.repository.chunkerPolynomial,
  };
}

function nameOfCache({ folder, names }: PartToScan): string {
  const words = [folder, ...(names ?? [])].map((each) => each.toString("base64"));
  return createHash("sha256").update(words.join(" ")).digest("hex").slice(0, 32);
}

function keep(place: string, { table, old, tree }: ScanResult): void {
  try {
    makeFolder(join(place, ".."));
    writeStatCache(place, table, old, { tree, epoch: NO_EPOCH });
  } catch {
    // Without the cache everything is read again.
  }
}

function add(
  all: Omit<ScannedParts, typeof Symbol.asyncDispose>,
  { folder, names }: PartToScan,
  result: ScanResult,
): void {
  const components = splitPath(folder);
  const { entries, bytes, databases, ownerless } = result.summarise();
  all.files += entries.files;
  all.bytes += bytes;
  const lead = folder.length === 1 ? folder : Buffer.concat([folder, Buffer.from("/")]);
  const absolute = <T extends { path: Uint8Array }>(each: T): T => ({
    ...each,
    path: Buffer.concat([lead, each.path]),
  });
  append(all.said.torn, result.notes.torn.map(absolute));
  append(all.said.captured, result.notes.captured.map(absolute));
  append(all.said.databases, databases.map(absolute));
  append(
    all.said.ownerless,
    ownerless.map((path) => absolute({ path }).path),
  );
  for (const left of leftOutOf(result)) all.leftOut.push(absolute(left));
  if (names === null) {
    const root = rootMetadata(folder);
    const node = directoryNode(components.at(-1)!, result.tree, { ...root, mode: modeWithoutList(root) });
    all.leaves.push({ components, node });
    return;
  }
  const found = [...presentSource(result).list(result.tree)];
  append(
    all.leaves,
    found.map((node) => ({ components: [...components, node.name], node })),
  );
  const left = new Set(all.leftOut.map(({ path }) => latin1(path)));
  const there = new Set(found.map(({ name }) => latin1(name)));
  for (const name of names) {
    const path = Buffer.concat([lead, name]);
    if (!there.has(latin1(name)) && !left.has(latin1(path)))
      all.leftOut.push({ path, reason: "vanished", detail: "it was removed while other files were read" });
  }
}

/** Uploads the packs of scans; the first failed upload ends the scans. */
class PackTaking {
  readonly style: Session["access"]["repository"]["style"];
  readonly waiting = new SharedArrayBuffer(4);
  readonly store: Pick<NonNullable<ScanOptions["store"]>, "keys" | "index" | "directory">;
  readonly signal: AbortSignal;
  failure: CairnError | null = null;
  readonly #into: ScanPartsOptions;
  readonly #stop = new AbortController();
  #pending: Promise<void> = Promise.resolve();

  constructor(into: ScanPartsOptions) {
    const { session, options } = into;
    const { repository } = session.access;
    const directory = join(session.access.workDirectory(), "packs");
    makeFolder(directory);
    this.#into = into;
    this.style = repository.style;
    this.store = { keys: repository.keys, index: session.index, directory };
    this.signal =
      options.signal === undefined ? this.#stop.signal : AbortSignal.any([this.#stop.signal, options.signal]);
  }

  onPack(pack: FinishedPack): void {
    const { target, added } = this.#into;
    added[pack.type === "data" ? "data_blobs" : "tree_blobs"] += pack.blobs;
    added.bytes += plainBytesOf(pack.header);
    const taken = target.take(pack).then(() => {
      const waiting = new Int32Array(this.waiting);
      Atomics.sub(waiting, 0, 1);
      Atomics.notify(waiting, 0);
    });
    this.#pending = Promise.all([this.#pending, taken]).then(async () => {
      try {
        if (this.failure === null) await target.settle();
      } catch (error) {
        this.failure ??= toCairnError(error);
        this.#stop.abort();
      }
    });
  }

  /** Throws the error that failed the upload of any pack. */
  async settled(): Promise<void> {
    await this.#pending;
    if (this.failure !== null) throw this.failure;
  }
}
