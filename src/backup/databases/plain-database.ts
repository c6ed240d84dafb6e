import { RecordFinder } from "../../archive/scan/find-record.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { sha256, Sha256Stream } from "../../crypto/hash.ts";
import { CairnError } from "../../errors.ts";
import { hex } from "../../formats/bytes.ts";
import { DATABASE_BLOB_BYTES } from "../../formats/payloads/sqlite-pages.ts";
import { decodeTree, encodeTree, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { quotedPath } from "../../fs/paths/safe-path.ts";
import { TREE_BLOB } from "../../repository/index/blob-index.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import type { NearPacks } from "../../repository/read/near-packs.ts";
import type { SnapshotContent } from "../open/content.ts";
import type { PlacedDatabase } from "../../archive/databases/placed-databases.ts";
import { DatabasePages } from "../../archive/databases/stored-database.ts";
import { chosenDatabases } from "./write-databases.ts";

interface From {
  blobs: BlobSource;
  near: NearPacks;
}

/**
 * Reads a database from its pages and cuts it into the blobs of a plain file. Returns the node of that file. Throws
 * `damaged` unless each page and the whole database have their recorded digests. `take` is called with each blob.
 */
export async function readAsPlainFile(
  from: From,
  { path, database }: PlacedDatabase,
  { take, signal }: { take?: (id: Uint8Array, bytes: Uint8Array) => void; signal?: AbortSignal | undefined },
): Promise<TreeNode> {
  const pages = await DatabasePages.open(from.blobs, database);
  const whole = new Sha256Stream();
  const ids: Uint8Array[] = [];
  for await (const piece of pages.read(from.near, signal)) {
    whole.update(piece);
    for (let at = 0; at < piece.length; at += DATABASE_BLOB_BYTES) {
      const blob = piece.subarray(at, at + DATABASE_BLOB_BYTES);
      const id = sha256(blob);
      ids.push(id);
      take?.(id, blob);
    }
  }
  if (hex(whole.digest()) !== pages.manifest.sha256)
    throw new CairnError("damaged", `database ${quotedPath(path)}: its digest differs from the one in its manifest`);
  const name = path.subarray(path.lastIndexOf(0x2f) + 1);
  return { ...pages.manifest.node, name, content: Buffer.concat(ids) };
}

/**
 * Returns a function that lists a snapshot's directories with its chosen databases as plain files. Reads such a database
 * to know its blobs, unless the scanned folder has the same one.
 */
export async function listPlainFiles(
  from: From,
  content: SnapshotContent,
  { paths, scan, signal }: { paths: readonly Uint8Array[] | null; scan: ScanResult; signal?: AbortSignal | undefined },
): Promise<(directory: Uint8Array) => TreeNodes> {
  const { blobs } = from;
  /** The blobs of databases, by the digests that the snapshot's trees name instead. */
  const contents = new Map<string, Uint8Array>();
  const finder = new RecordFinder(scan);
  for (const placed of chosenDatabases(content, paths)) {
    const { sha256: digest } = placed.database.manifest;
    const present = finder.hashOf(placed.path) === digest ? finder.nodeOf(placed.path) : null;
    const { content: ids } = present ?? (await readAsPlainFile(from, placed, { signal }));
    if (ids !== undefined) contents.set(digest, ids);
  }
  return (directory) => {
    const lent = blobs.lent(directory);
    if (lent === undefined) return decodeTree(blobs.readId(directory, TREE_BLOB));
    const nodes = [...decodeTree(lent)].map((node) => {
      const ids = node.content && contents.get(hex(node.content));
      return ids === undefined ? node : { ...node, content: ids };
    });
    return decodeTree(encodeTree(nodes));
  };
}
