import { CairnError } from "../errors.ts";
import { decodeKeyFile } from "../formats/restic/key-file.ts";
import { type BlobIndex, DATA_BLOB, TREE_BLOB } from "../repository/index/blob-index.ts";
import type { CallOptions, CatBackupResult } from "../contract/index.ts";
import { findSnapshot } from "./open/snapshots.ts";
import { within } from "./open/session.ts";
import type { OpenRepository } from "./open/open-repository.ts";
import { readBlob } from "../archive/databases/nodes.ts";
import { objectIdOf } from "../ids.ts";

const KINDS = ["config", "snapshot", "index", "key", "lock", "tree", "blob"];

/** One object of a repository, opened and decoded; keys and salts are left out, and a blob's bytes are in base64. */
export async function catBackup(
  access: OpenRepository,
  what: { kind: string; id: string | undefined },
  options: CallOptions,
): Promise<CatBackupResult> {
  const { kind, id } = what;
  const { repository, storage } = access;
  if (!KINDS.includes(kind))
    throw new CairnError("usage", `cat shows ${KINDS.join(", ")}; found ${JSON.stringify(kind)}`);
  if (kind === "config") {
    if (id !== undefined) throw new CairnError("usage", `cat config takes no id; found ${JSON.stringify(id)}`);
    const content = {
      version: repository.version,
      id: repository.id,
      chunker_polynomial: repository.chunkerPolynomial,
    };
    return { ...access.info, kind, id: repository.id, content };
  }
  if (id === undefined) throw new CairnError("usage", `cat ${kind} needs an id`);
  if (kind === "snapshot") {
    const found = findSnapshot(await repository.listSnapshots(options.signal), id);
    return { ...access.info, kind, id: found.id, content: await json(access, "snapshots", found.id) };
  }
  const named = async (files: "index" | "locks" | "keys"): Promise<string> =>
    oneOf(
      kind,
      id,
      (await storage.list(files)).map(({ name }) => name),
    );
  if (kind === "index" || kind === "lock") {
    const files = kind === "lock" ? "locks" : "index";
    const name = await named(files);
    return { ...access.info, kind, id: name, content: await json(access, files, name) };
  }
  if (kind === "key") {
    const name = await named("keys");
    const { data: _data, salt: _salt, ...content } = decodeKeyFile(await storage.load("keys", name));
    return { ...access.info, kind, id: name, content };
  }
  return access.reading(options, async () => {
    const index = await access.index(options.signal);
    return within({ access, options, index }, async ({ reader }) => {
      const name = oneOf(kind, id, blobsLike(index, id, kind === "tree" ? TREE_BLOB : null));
      const bytes = Buffer.from(name, "hex");
      const isTree = index.lookup(bytes, 0, TREE_BLOB) >= 0;
      const plain = Buffer.from(await readBlob(reader, bytes, isTree ? TREE_BLOB : DATA_BLOB));
      const content: unknown =
        kind === "tree" ? JSON.parse(plain.toString("utf8")) : { content_b64: plain.toString("base64") };
      return { ...access.info, kind, id: name, content };
    });
  });
}

async function json(access: OpenRepository, kind: "snapshots" | "index" | "locks", name: string): Promise<unknown> {
  return JSON.parse(Buffer.from(await access.repository.loadUnpacked(kind, name)).toString("utf8"));
}

/** The one name that a word means: the whole name, or a prefix of at least two digits. Throws `not_found`, `ambiguous`. */
export function oneOf(kind: string, word: string, names: readonly string[]): string {
  const fits = /^[0-9a-f]{2,64}$/.test(word) ? [...new Set(names)].filter((name) => name.startsWith(word)) : [];
  if (fits.length === 1) return fits[0]!;
  if (fits.length === 0) throw new CairnError("not_found", `no ${kind} ${JSON.stringify(word.slice(0, 80))}`);
  throw new CairnError("ambiguous", `${word} fits more than one ${kind}`, { hint: "give more digits" });
}

/** The first two ids of blobs with this prefix; `type` null: of either type. */
export function blobsLike(index: BlobIndex, prefix: string, type: number | null): string[] {
  const names: string[] = [];
  for (let entry = 0; entry < index.count && names.length < 2; entry++) {
    if (type !== null && index.table.typeOf(entry) !== type) continue;
    const name = objectIdOf(index.idOf(entry));
    if (name.startsWith(prefix)) names.push(name);
  }
  return names;
}
