import { createHash, hash } from "node:crypto";
import { closeSync, constants, existsSync, fstatSync, readSync } from "node:fs";
import { join } from "node:path";
import { pipeline, Readable } from "node:stream";
import zlib from "node:zlib";
import { parse } from "smol-toml";
import { CairnError, damaged, errnoOf, toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import {
  checkConfig,
  decodeManifest,
  idOfManifest,
  type Manifest,
  MOST_BLOB,
  type RepositoryConfig,
} from "../../formats/msgvault/manifest.ts";
import { crc32c, decodeIndex, decodePack, type PackEntry, type Place } from "../../formats/msgvault/objects.ts";
import { syscallError } from "../../fs/linux/errno.ts";
import { openOwnWay, syscalls } from "../../fs/linux/syscalls.ts";
import { DirectoryListing } from "../../fs/listing.ts";
import { listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { openRegular, readRegular } from "../../fs/regular-file.ts";

const MOST_CONFIG = 64 << 10;
const MOST_MANIFEST = 64 << 20;
const MOST_INDEX = 1 << 30;
const PIECE = 1 << 20;
const { O_DIRECTORY, O_NOATIME, O_RDONLY } = constants;

export const sha256 = (bytes: Uint8Array): Buffer => hash("sha256", bytes, "buffer");

interface OpenPack {
  id: string;
  fd: number;
  entries: Map<string, PackEntry>;
}

/** A snapshot of the list, or the reason why its manifest cannot be read. */
type ListedManifest = { id: string } & ({ manifest: Manifest } | { problem: CairnError });

/** Opens without a change of the access time, if this user owns the entry. */
function quietly<T>(path: string, open: (flags: number) => T): T {
  try {
    return open(O_RDONLY | O_NOATIME);
  } catch (error) {
    if (errnoOf(error) !== "EPERM") throw toCairnError(error, `read ${printablePath(path)}`);
    return open(O_RDONLY);
  }
}

const readFile = (path: string, limit: number): Buffer => quietly(path, (flags) => readRegular(path, { flags, limit }));

function readBytes(fd: number, at: number, length: number, what: string): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length;) {
    const count = readSync(fd, bytes, done, length - done, at + done);
    if (count === 0) throw damaged(`${what} is truncated: it ends at ${at + done}`);
    done += count;
  }
  return bytes;
}

function namesIn(folder: string): string[] {
  const fd = quietly(folder, (flags) => openOwnWay(folder, flags | O_DIRECTORY));
  try {
    const listing = new DirectoryListing();
    const listed = listing.read(syscalls(), fd);
    if (listed < 0) throw syscallError(listed, `list ${printablePath(folder)}`);
    return listing.offsets.map((offset) => listing.nameOf(offset));
  } finally {
    closeSync(fd);
  }
}

/** An open repository, which is only read. */
export class MsgvaultRepository implements Disposable {
  readonly path: string;
  readonly config: RepositoryConfig;
  #listed: ListedManifest[] | null = null;
  #places: Map<string, Place> | null = null;
  /** Packs are read one after the other. */
  #open: OpenPack | null = null;

  private constructor(path: string, config: RepositoryConfig) {
    this.path = path;
    this.config = config;
  }

  /** Null if the folder is no such repository. Throws `newer_version`, `unsupported`, `damaged`, `permission`. */
  static at(path: string): MsgvaultRepository | null {
    let members: unknown;
    try {
      members = parse(readFile(join(path, "config.toml"), MOST_CONFIG).toString("utf8"));
    } catch (error) {
      // Another user's config says nothing; the folder beside it does.
      if (toCairnError(error).code === "permission" && existsSync(join(path, "snapshots"))) throw error;
      return null;
    }
    const isOwn = ["min_reader_version", "repo_id"].every((name) => Object.hasOwn(members as object, name));
    return isOwn ? new MsgvaultRepository(path, checkConfig(members)) : null;
  }

  /** Throws `not_found` if the folder is no such repository, and the errors of {@link at}. */
  static open(path: string): MsgvaultRepository {
    const found = MsgvaultRepository.at(path);
    if (found !== null) return found;
    throw new CairnError("not_found", `${printablePath(path)} is not a msgvault repository`, {
      hint: "name the folder with the files config.toml and snapshots/*.mvmanifest",
    });
  }

  [Symbol.dispose](): void {
    if (this.#open !== null) closeSync(this.#open.fd);
    this.#open = null;
  }

  /** Lists all snapshots, oldest first. A snapshot whose manifest cannot be read has the problem instead. */
  list(): ListedManifest[] {
    return (this.#listed ??= this.#read("snapshots", namesIn)
      .flatMap((name) => idOfManifest(name) ?? [])
      .toSorted()
      .map((id) => {
        try {
          const bytes = this.#read(`snapshots/${id}.mvmanifest`, (path) => readFile(path, MOST_MANIFEST));
          return { id, manifest: decodeManifest(bytes, id, sha256) };
        } catch (error) {
          return { id, problem: toCairnError(error) };
        }
      }));
  }

  /** Returns the snapshot that an id, its beginning or `latest` names. Throws `not_found`, `ambiguous`. */
  resolve(word: string): Manifest {
    const all = this.list();
    const [one, ...others] = word === "latest" ? all.slice(-1) : all.filter(({ id }) => id.startsWith(word));
    if (one === undefined || word === "")
      throw new CairnError(
        "not_found",
        `no snapshot of ${printablePath(this.path)} has the id ${JSON.stringify(word)}`,
      );
    if (others.length > 0)
      throw new CairnError(
        "ambiguous",
        `${word} fits ${others.length + 1} snapshots: ${listedNames([one, ...others].map(({ id }) => id))}`,
        {
          hint: "use more of the id",
          details: { candidates: [one, ...others].map(({ id }) => id) },
        },
      );
    if ("problem" in one) throw one.problem;
    return one.manifest;
  }

  /** Reads a file or folder that the repository must have: if it is missing, this is damage. */
  #read<T>(name: string, read: (path: string) => T): T {
    const path = join(this.path, name);
    try {
      return read(path);
    } catch (error) {
      const failed = toCairnError(error, `read ${printablePath(path)}`);
      if (failed.code !== "not_found") throw failed;
      throw damaged(`${printablePath(this.path)}: ${name} is missing`, { path: name });
    }
  }

  #place(blob: string, what: string): Place {
    if (this.#places === null) {
      this.#places = new Map();
      const add = this.#places.set.bind(this.#places);
      for (const name of this.#read("indexes", namesIn).filter((each) => each.endsWith(".mvidx")))
        decodeIndex(
          this.#read(`indexes/${name}`, (path) => readFile(path, MOST_INDEX)),
          sha256,
          add,
        );
    }
    const place = this.#places.get(blob);
    if (place === undefined) throw damaged(`${what} is in no index`, { field: "blob", what });
    return place;
  }

  /** Opens a pack by its id and its magic: each program gives its packs another ending. */
  #pack(id: string): OpenPack {
    if (this.#open?.id === id) return this.#open;
    this[Symbol.dispose]();
    const folder = `packs/${id.slice(0, 2)}`;
    for (const name of this.#read(folder, namesIn).filter((each) => each.startsWith(`${id}.`))) {
      const path = join(this.path, folder, name);
      const fd = quietly(path, (flags) => openRegular(path, { flags }));
      try {
        const { size } = fstatSync(fd);
        const read = (at: number, length: number): Buffer => readBytes(fd, at, length, `the pack ${name}`);
        if (size >= 4 && latin1(read(0, 4)) === "MVPK")
          return (this.#open = { id, fd, entries: decodePack(`the pack ${name}`, { size, read, sha256 }) });
      } finally {
        if (this.#open?.fd !== fd) closeSync(fd);
      }
    }
    throw damaged(`${printablePath(this.path)}: the pack ${id} is missing`, { pack: id });
  }

  /** Orders blobs so that each pack is read once, from its beginning to its end. */
  inOrder<T extends { blob: string; path: string }>(blobs: readonly T[]): T[] {
    const placed = blobs.map((each) => ({ each, ...this.#place(each.blob, each.path) }));
    const ofPacks = Map.groupBy(placed, ({ pack }) => pack).values();
    return [...ofPacks].flatMap((all) => all.toSorted((a, b) => a.offset - b.offset).map(({ each }) => each));
  }

  /**
   * Returns a blob's content in pieces. The last piece comes before the proof. Throws `damaged`, also if the content has
   * another size than `size`, or more than `limit` bytes.
   */
  async *read(
    blob: string,
    path: string,
    { size, limit = MOST_BLOB }: { size?: number; limit?: number },
  ): AsyncGenerator<Buffer> {
    const what = `${path} (blob ${blob.slice(0, 16)})`;
    const place = this.#place(blob, what);
    const { id, fd, entries } = this.#pack(place.pack);
    const entry = entries.get(blob);
    const wrong = (field: string, why: string, cause?: unknown): CairnError =>
      new CairnError("damaged", `${what} in the pack ${id}: ${why}`, { details: { field, what, pack: id }, cause });
    if (entry?.offset !== place.offset || entry.stored !== place.stored || entry.flags !== place.flags)
      throw wrong("offset", "it lies elsewhere than the index says");
    const { offset, raw, flags, crc } = entry;
    if (raw !== (size ?? raw)) throw wrong("size", `it has ${raw} bytes, but its list says ${size}`);
    if (raw > limit) throw wrong("raw_len", `it has ${raw} bytes; at most ${limit} are expected`);
    const state = createHash("sha256");
    let [checksum, done] = [0, 0];
    const stored = function* (): Generator<Buffer> {
      for (let at = 0; at < entry.stored; at += PIECE) {
        const bytes = readBytes(fd, offset + at, Math.min(PIECE, entry.stored - at), `the pack ${id}`);
        checksum = crc32c(bytes, checksum);
        yield bytes;
      }
    };
    try {
      for await (const piece of flags === 1 ? unpacked(stored(), entry) : stored()) {
        done += piece.length;
        if (done > raw) break;
        state.update(piece);
        yield piece;
      }
    } catch (error) {
      const isOfFrame = !(error instanceof CairnError) && (error as { syscall?: string }).syscall === undefined;
      throw isOfFrame ? wrong("frame", (error as Error).message, error) : error;
    }
    if (done !== raw) throw wrong("raw_len", `it does not have the ${raw} bytes that the pack says`);
    if (checksum !== crc) throw wrong("crc32c", "its stored bytes do not match their checksum");
    if (state.digest("hex") !== blob) throw wrong("sha256", "its content does not match its id");
  }

  /** Returns a proven blob of at most `limit` bytes. */
  async whole(blob: string, path: string, limit: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for await (const piece of this.read(blob, path, { limit })) pieces.push(piece);
    return Buffer.concat(pieces);
  }
}

/** Unpacks a zstd frame. Its window is at most 32 MiB, or as large as the content: writers keep small contents as a window. */
async function* unpacked(bytes: Iterable<Buffer>, { stored, raw }: PackEntry): AsyncGenerator<Buffer> {
  const window = Math.min(Math.max(Math.ceil(Math.log2(raw)), 25), 31);
  const params = { [zlib.constants.ZSTD_d_windowLogMax]: window };
  const frame = zlib.createZstdDecompress({ params, chunkSize: Math.min(Math.max(raw, 64), PIECE) });
  pipeline(Readable.from(bytes), frame, () => undefined);
  yield* frame;
  if (frame.bytesWritten !== stored) throw new Error("bytes follow the frame");
}
