import { fileNode } from "../../archive/write/root-metadata.ts";
import { type SnapshotTrees, treesAbove } from "../../workspace/store/snapshot-tree.ts";
import { NodeDigester } from "../../repository/verify/node-digests.ts";
import { CairnError } from "../../errors.ts";
import { ByteWriter } from "../../formats/bytes.ts";
import { encodeManifest } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { CutContent } from "../../repository/packs/stream-cutter.ts";

/** A stream's file within its snapshot. */
export interface StreamFile {
  /** Components of its absolute path. */
  components: readonly Buffer[];
  uid: number;
  gid: number;
  /** Milliseconds since 1970, when the stream's first byte was requested. */
  at: number;
}

/** Content of a snapshot of one file. */
export interface StreamSnapshot extends SnapshotTrees {
  /** State digest of a folder with that file alone. */
  stateDigest: string;
  /** Number of files in the snapshot, with the manifest. */
  files: number;
  bytes: number;
}

const MAX_NAME_BYTES = 255;
const REPLACEMENT = "\ufffd";

/** The parts of a given name: `db.sql`, `dumps/db.sql` or `/dumps/db.sql`. Throws `usage`. */
export function streamPath(filename: string): Buffer[] {
  const names = filename.replace(/^\/+/, "").split("/");
  const bad = names.some(
    (name) =>
      name === "" || name === "." || name === ".." || name.includes("\0") || Buffer.byteLength(name) > MAX_NAME_BYTES,
  );
  if (bad)
    throw new CairnError("usage", `${JSON.stringify(filename.slice(0, 300))} cannot be the name of a file`, {
      hint: "for example db.sql or dumps/db.sql",
    });
  // The character that replaces invalid UTF-8 of an argument; the paths of snapshots are texts, which cannot hold its
  // bytes.
  if (!filename.isWellFormed() || filename.includes(REPLACEMENT))
    throw new CairnError(
      "usage",
      `${JSON.stringify(filename.slice(0, 300))} is not UTF-8; the file name of a stream must be UTF-8`,
      {
        hint: "give another name, and rename the file after a restore",
      },
    );
  if (names[0] === ".cairn") throw new CairnError("usage", "/.cairn is reserved for a snapshot's own records");
  return names.map((name) => Buffer.from(name, "utf8"));
}

/** The trees and the manifest of a snapshot that holds one file. */
export function streamSnapshot(file: StreamFile, content: CutContent): StreamSnapshot {
  const { components, uid, gid } = file;
  const [mtimeSec, mtimeNs] = [Math.floor(file.at / 1000), (file.at % 1000) * 1_000_000];
  const metadata = { mode: 0o600, uid, gid, mtimeSec, mtimeNs };
  const name = components.at(-1)!;
  const leaf = fileNode(name, metadata, { size: content.size, content: content.ids });
  const digests = Buffer.from(digestsOf(leaf, content.sha256));
  const stateDigest = digests.toString("hex", 0, 32);
  const manifest = new ByteWriter(1024);
  encodeManifest(manifest, {
    stateDigest,
    metadataDigest: digests.toString("hex", 32, 64),
    complete: true,
    entries: { files: 1, directories: 0, links: 0, other: 0 },
    labels: [],
    holeMaps: [],
    fileHashes: content.ids.length > 32 ? [{ path: name, sha256: content.sha256, size: content.size }] : [],
    omitted: [],
    lossless: [],
  });
  const trees = treesAbove({
    components,
    leaf,
    above: () => ({ mode: 0o700, uid, gid, mtimeSec, mtimeNs: 0 }),
    manifest: Uint8Array.from(manifest.view()),
    recordedAt: mtimeSec,
  });
  return { ...trees, stateDigest, files: 2, bytes: content.size + manifest.length };
}

/** State digest and metadata digest of a folder with this file alone, 64 bytes. */
function digestsOf(leaf: TreeNode, sha256: Uint8Array): Uint8Array {
  const digests = new NodeDigester().digest([leaf], {
    child: () => sha256,
    fileHash: () => sha256,
    linkedTo: () => undefined,
    lossless: () => undefined,
  });
  if (digests === null) throw new CairnError("internal", "a file of a stream has no digest");
  return digests;
}
