import { createHash, hash } from "node:crypto";
import { closeSync, constants, existsSync, fstatSync, readSync } from "node:fs";
import { join } from "node:path";
import { pipeline, Readable } from "node:stream";
import zlib from "node:zlib";
import { parse } from "smol-toml";
import { CairnError, damaged, errnoOf, toCairnError } from "../../errors.ts";
import { hex, latin1 } from "../../formats/bytes.ts";
import {
  checkConfig,
  decodeManifest,
  idOfManifest,
  type Manifest,
  type RepositoryConfig,
} from "../../formats/msgvault/manifest.ts";
import {
  crc32c,
  decodeIndex,
  decodePack,
  type PackEntry,
  type Place,
  type Sha256,
  windowOf,
} from "../../formats/msgvault/objects.ts";
import { syscallError } from "../../fs/linux/errno.ts";
import { openOwnWay, syscalls } from "../../fs/linux/syscalls.ts";
import { DirectoryListing } from "../../fs/listing.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { openRegular } from "../../fs/regular-file.ts";

const MOST_CONFIG = 64 << 10;
const MOST_MANIFEST = 64 << 20;
const MOST_INDEX = 1 << 30;
/** A blob that is at most this long, stored and unpacked, is read in one piece. */
const WHOLE = 64 << 20;
const PIECE = 1 << 20;
const MOST_OPEN_PACKS = 32;
const { O_DIRECTORY, O_NOATIME, O_RDONLY } = constants;

export const sha256: Sha256 = (bytes) => hash("sha256", bytes, "buffer");

interface OpenPack {
  id: string;
  fd: number;
  entries: Map<string, PackEntry>;
}

/** A snapshot of the list, or the reason why its manifest cannot be read. */
export type ListedManifest = { id: string } & ({ manifest: Manifest } | { problem: CairnError });

/** Opens without a change of the access time, if this user owns the entry. */
function quietly(path: string, open: (path: string, flags: number) => number): number {
  try {
    return open(path, O_RDONLY | O_NOATIME);
  } catch (error) {
    if (errnoOf(error) !== "EPERM") throw toCairnError(error, `read ${printablePath(path)}`);
    return open(path, O_RDONLY);
  }
}

const openFile = (path: string, flags: number): number => openRegular(path, { flags });

function readBytes(fd: number, at: number, length: number, what: string): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length;) {
    const count = readSync(fd, bytes, done, length - done, at + done);
    if (count === 0) throw damaged(`${what} is truncated: it ends at ${at + done}`);
    done += count;
  }
  return bytes;
}

function readFile(path: string, limit: number): Buffer {
  const fd = quietly(path, openFile);
  try {
    const { size } = fstatSync(fd);
    if (size > limit)
      throw damaged(`${printablePath(path)} has ${size} bytes; at most ${limit} are expected`, {
        field: "size",
        actual: size,
        expected: limit,
      });
    return readBytes(fd, 0, size, printablePath(path));
  } finally {
    closeSync(fd);
  }
}

function namesOf(folder: string): string[] {
  const fd = quietly(folder, (path, flags) => openOwnWay(path, flags | O_DIRECTORY));
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
  readonly #manifests = new Map<string, Manifest>();
  readonly #packs = new Map<string, OpenPack>();
  #places: Map<string, Place> | null = null;

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
    for (const { fd } of this.#packs.values()) closeSync(fd);
    this.#packs.clear();
  }

  /** Lists all snapshots, oldest first. A snapshot whose manifest cannot be read has the problem instead. */
  list(): ListedManifest[] {
    const ids = this.#names("snapshots").flatMap((name) => idOfManifest(name) ?? []);
    return ids.toSorted().map((id) => {
      try {
        return { id, manifest: this.manifest(id) };
      } catch (error) {
        return { id, problem: toCairnError(error) };
      }
    });
  }

  /** Returns the snapshot that an id, its beginning or `latest` names. Throws `not_found`, `ambiguous`. */
  resolve(word: string): Manifest {
    const all = this.list();
    const found = word === "latest" ? all.slice(-1) : all.filter(({ id }) => id.startsWith(word));
    const [one] = found;
    if (one === undefined || word === "")
      throw new CairnError(
        "not_found",
        `no snapshot of ${printablePath(this.path)} has the id ${JSON.stringify(word)}`,
      );
    if (found.length > 1)
      throw new CairnError("ambiguous", `${found.length} snapshots have ids that begin with ${word}`, {
        details: { candidates: found.map(({ id }) => id) },
      });
    if ("problem" in one) throw one.problem;
    return one.manifest;
  }

  /** Throws `damaged` with the field, `newer_version`. */
  manifest(id: string): Manifest {
    const known = this.#manifests.get(id);
    if (known !== undefined) return known;
    const bytes = this.#file(join("snapshots", `${id}.mvmanifest`), MOST_MANIFEST);
    const manifest = decodeManifest(bytes, id, sha256);
    this.#manifests.set(id, manifest);
    return manifest;
  }

  #file(name: string, limit: number): Buffer {
    try {
      return readFile(join(this.path, name), limit);
    } catch (error) {
      throw this.#lacking(error, name);
    }
  }

  #names(folder: string): string[] {
    try {
      return namesOf(join(this.path, folder));
    } catch (error) {
      throw this.#lacking(error, folder);
    }
  }

  /** A file that the repository must have is missing: damage. Returns any other error as it is. */
  #lacking(error: unknown, name: string): CairnError {
    const failed = toCairnError(error, `read ${printablePath(join(this.path, name))}`);
    if (failed.code !== "not_found") return failed;
    return damaged(`${printablePath(this.path)}: ${name} is missing`, { path: name });
  }

  #allPlaces(): Map<string, Place> {
    if (this.#places !== null) return this.#places;
    const places = new Map<string, Place>();
    for (const name of this.#names("indexes"))
      if (name.endsWith(".mvidx"))
        decodeIndex(this.#file(join("indexes", name), MOST_INDEX), sha256, (id, place) => places.set(id, place));
    return (this.#places = places);
  }

  /** Finds a pack by its id and its magic: each program gives its packs another ending. */
  #pack(id: string): OpenPack {
    let pack = this.#packs.get(id);
    if (pack === undefined) {
      const folder = join("packs", id.slice(0, 2));
      for (const name of this.#names(folder).filter((each) => each.startsWith(`${id}.`))) {
        const file = join(this.path, folder, name);
        const fd = quietly(file, openFile);
        try {
          const { size } = fstatSync(fd);
          const read = (at: number, length: number): Buffer => readBytes(fd, at, length, `the pack ${name}`);
          if (pack !== undefined || size < 4 || latin1(read(0, 4)) !== "MVPK") closeSync(fd);
          else pack = { id, fd, entries: decodePack(`the pack ${name}`, { size, read, sha256 }) };
        } catch (error) {
          closeSync(fd);
          throw error;
        }
      }
    }
    if (pack === undefined) throw damaged(`${printablePath(this.path)}: the pack ${id} is missing`, { pack: id });
    // Of too many open packs, the one that was used longest ago is closed.
    this.#packs.delete(id);
    this.#packs.set(id, pack);
    const [oldest] = this.#packs.values();
    if (this.#packs.size > MOST_OPEN_PACKS) {
      closeSync(oldest!.fd);
      this.#packs.delete(oldest!.id);
    }
    return pack;
  }

  #located(blob: string, what: string): { pack: OpenPack; entry: PackEntry; name: string } {
    const name = `${what} (blob ${hex(Buffer.from(blob, "latin1")).slice(0, 16)})`;
    const place = this.#allPlaces().get(blob);
    if (place === undefined) throw damaged(`${name} is in no index`, { field: "blob", what });
    const pack = this.#pack(place.pack);
    const entry = pack.entries.get(blob);
    const isSame = entry?.offset === place.offset && entry.stored === place.stored && entry.flags === place.flags;
    if (entry === undefined || !isSame)
      throw damaged(`${name} lies elsewhere in the pack ${place.pack} than the index says`, {
        field: "offset",
        what,
        pack: place.pack,
      });
    return { pack, entry, name };
  }

  /** Orders blobs so that each pack is read once, from its beginning to its end. */
  inOrder<T extends { blob: string }>(blobs: readonly T[], what: string): T[] {
    const placed = blobs.map((each) => ({ each, ...this.#located(each.blob, what) }));
    return placed
      .toSorted((a, b) => (a.pack.id < b.pack.id ? -1 : a.pack.id > b.pack.id ? 1 : a.entry.offset - b.entry.offset))
      .map(({ each }) => each);
  }

  /**
   * Returns a blob's content in pieces. A blob of up to 64 MiB is one piece, proven before it is returned; the last piece
   * of a longer one comes before the proof. Throws `damaged`, also if the content has another size than `size`.
   */
  async *read(blob: string, what: string, size?: number): AsyncGenerator<Buffer> {
    const { pack, entry, name } = this.#located(blob, what);
    const wrong = (field: string, why: string, cause?: unknown): CairnError =>
      new CairnError("damaged", `${name} in the pack ${pack.id}: ${why}`, {
        details: { field, what, pack: pack.id },
        cause,
      });
    if (size !== undefined && entry.raw !== size)
      throw wrong("size", `it has ${entry.raw} bytes, but its list says ${size}`);
    const [state, isWhole] = [createHash("sha256"), Math.max(entry.stored, entry.raw) <= WHOLE];
    let [crc, done] = [0, 0];
    const stored = function* (): Generator<Buffer> {
      for (let at = 0; at < entry.stored; at += isWhole ? WHOLE : PIECE) {
        const length = Math.min(isWhole ? WHOLE : PIECE, entry.stored - at);
        const bytes = readBytes(pack.fd, entry.offset + at, length, `the pack ${pack.id}`);
        crc = crc32c(bytes, crc);
        yield bytes;
      }
    };
    let held: Buffer | null = null;
    try {
      const pieces = entry.isCompressed ? unpacked(stored, { entry, isWhole, pack, name }) : stored();
      for await (const piece of pieces) {
        done += piece.length;
        if (done > entry.raw) break;
        state.update(piece);
        if (isWhole) held = piece;
        else yield piece;
      }
    } catch (error) {
      const isOfFrame = !(error instanceof CairnError) && (error as { syscall?: string }).syscall === undefined;
      throw isOfFrame ? wrong("frame", (error as Error).message, error) : error;
    }
    if (done !== entry.raw) throw wrong("raw_len", `it does not have the ${entry.raw} bytes that the pack says`);
    if (crc !== entry.crc) throw wrong("crc32c", "its stored bytes do not match their checksum");
    if (state.digest().toString("latin1") !== blob) throw wrong("sha256", "its content does not match its id");
    if (held !== null) yield held;
  }

  /** Returns a blob of at most `limit` bytes. */
  async whole(blob: string, what: string, limit: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    const { entry, name } = this.#located(blob, what);
    if (entry.raw > limit)
      throw damaged(`${name} has ${entry.raw} bytes; at most ${limit} are expected`, { field: "raw_len", what });
    for await (const piece of this.read(blob, what)) pieces.push(piece);
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }
}

/** Unpacks a zstd frame. A frame whose window is its whole content needs a window larger than zlib's default. */
function unpacked(
  stored: () => Generator<Buffer>,
  { entry, isWhole, pack, name }: { entry: PackEntry; isWhole: boolean; pack: OpenPack; name: string },
): AsyncIterable<Buffer> | Buffer[] {
  const head = readBytes(pack.fd, entry.offset, Math.min(entry.stored, 18), name);
  const window = windowOf(head, entry.raw, name);
  const params = { [zlib.constants.ZSTD_d_windowLogMax]: Math.min(Math.max(window, 23), 31) };
  if (!isWhole)
    return pipeline(Readable.from(stored()), zlib.createZstdDecompress({ params, chunkSize: PIECE }), () => undefined);
  const most = entry.raw + 1;
  return [...stored()].map((bytes) => {
    const options = { params, maxOutputLength: most, chunkSize: Math.max(64, most), info: true };
    const { buffer, engine } = zlib.zstdDecompressSync(bytes, options) as unknown as {
      buffer: Buffer;
      engine: zlib.Zlib;
    };
    if (engine.bytesWritten !== bytes.length) throw new Error("bytes follow the frame");
    return buffer;
  });
}
