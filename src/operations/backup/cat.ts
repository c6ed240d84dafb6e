import { CairnError } from "../../errors.ts";
import { decodeKeyFile } from "../../formats/key-file.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/blob-index.ts";
import type { FileKind } from "../../repository/storage/storage.ts";
import type { CallOptions, CatBackupResult } from "../contract.ts";
import { findSnapshot } from "./find-snapshot.ts";
import { looking } from "./look.ts";
import { blobsLike, oneOf } from "./object-names.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { readBlob } from "./snapshot-content.ts";

const KINDS = ["config", "snapshot", "index", "key", "lock", "tree", "blob"];

/** One object of a repository, opened and decoded; keys and salts are left out, and a blob's bytes are in base64. */
export async function catBackup(
  access: RepositoryAccess,
  what: { kind: string; id: string | undefined },
  options: CallOptions,
): Promise<CatBackupResult> {
  const { kind, id } = what;
  const { repository, storage } = access;
  if (!KINDS.includes(kind))
    throw new CairnError("usage", `cat knows ${KINDS.join(", ")}; not ${JSON.stringify(kind)}`);
  if (kind === "config") {
    if (id !== undefined) throw new CairnError("usage", `cat config takes no id; found ${JSON.stringify(id)}`);
    const content = {
      version: repository.version,
      id: repository.id,
      chunker_polynomial: repository.chunkerPolynomial,
    };
    return { ...access.info, kind, id: repository.id, content };
  }
  if (id === undefined) throw new CairnError("usage", `cat ${kind} wants an id`);
  if (kind === "snapshot") {
    const found = findSnapshot(await repository.listSnapshots(options.signal), id);
    return { ...access.info, kind, id: found.id, content: await json(access, "snapshots", found.id) };
  }
  if (kind === "index" || kind === "lock") {
    const files = kind === "lock" ? "locks" : "index";
    const name = oneOf(
      kind,
      id,
      (await storage.list(files)).map((file) => file.name),
    );
    return { ...access.info, kind, id: name, content: await json(access, files, name) };
  }
  if (kind === "key") {
    const name = oneOf(
      kind,
      id,
      (await storage.list("keys")).map((file) => file.name),
    );
    const { data: _data, salt: _salt, ...content } = decodeKeyFile(await storage.load("keys", name));
    return { ...access.info, kind, id: name, content };
  }
  return looking(access, options, async (look) => {
    const type = kind === "tree" ? TREE_BLOB : null;
    const name = oneOf(kind, id, blobsLike(look.index, id, type));
    const bytes = Buffer.from(name, "hex");
    const isTree = look.index.lookup(bytes, 0, TREE_BLOB) >= 0;
    const plain = Buffer.from(await readBlob(look, bytes, isTree ? TREE_BLOB : DATA_BLOB));
    const content: unknown =
      kind === "tree" ? JSON.parse(plain.toString("utf8")) : { content_b64: plain.toString("base64") };
    return { ...access.info, kind, id: name, content };
  });
}

async function json(
  access: RepositoryAccess,
  kind: FileKind & ("snapshots" | "index" | "locks"),
  name: string,
): Promise<unknown> {
  return JSON.parse(Buffer.from(await access.repository.loadUnpacked(kind, name)).toString("utf8"));
}
