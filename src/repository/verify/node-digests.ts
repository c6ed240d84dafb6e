import { sha256 } from "../../crypto/hash.ts";
import { HashedWriter } from "./hashed-writer.ts";
import { CairnError } from "../../errors.ts";
import {
  appendMetadataEntry,
  appendStateEntry,
  beginMetadataNode,
  beginStateNode,
  type DigestEntry,
} from "../../formats/digest.ts";
import type { LosslessField } from "../../formats/records/manifest.ts";
import type { NodeType, TreeNode, TreeNodes } from "../../formats/restic/tree.ts";
import { newArena } from "../../native.ts";

/** Computes the digests of one directory from the nodes of its tree. */

const DIGEST_TYPE: Record<NodeType, DigestEntry["type"] | null> = {
  file: "f",
  dir: "d",
  symlink: "l",
  dev: "b",
  chardev: "c",
  fifo: "p",
  socket: "s",
  irregular: null,
};
const EMPTY = new Uint8Array(0);
const NOTHING = sha256(EMPTY);

/** Facts that the nodes of a directory do not have themselves. */
export interface NodeFacts {
  /** state digest then metadata digest, 64 bytes, of the n-th directory among the nodes */
  child(n: number): Uint8Array;
  /** whole-file hash of a file of several blobs; null if it is unknown */
  fileHash(node: TreeNode): Uint8Array | null;
  /** path of the first member of the node's hard-link group; undefined if the node has no links */
  linkedTo(node: TreeNode): Uint8Array | undefined;
  /** the manifest's corrections for the node; undefined for nearly all */
  lossless(node: TreeNode): readonly LosslessField[] | undefined;
}

export class NodeDigester {
  readonly #state = new HashedWriter();
  readonly #meta = new HashedWriter();
  readonly #result = newArena(64);

  /**
   * Returns state digest and metadata digest, 64 bytes, valid until the next call; null if a file's hash is unknown.
   */
  digest(nodes: TreeNodes, facts: NodeFacts): Uint8Array | null {
    const state = this.#state.writer;
    const meta = this.#meta.writer;
    state.reset();
    meta.reset();
    beginStateNode(state, nodes.length);
    beginMetadataNode(meta, nodes.length);
    let directories = 0;
    for (const node of nodes) {
      const entry = entryOf(node, facts);
      if (node.subtree !== undefined) {
        const child = facts.child(directories++);
        entry.node = child.subarray(0, 32);
        appendStateEntry(state, entry);
        entry.node = child.subarray(32, 64);
      } else {
        if (entry.type === "f" && entry.contentHash === undefined) return null;
        appendStateEntry(state, entry);
        const linkedTo = facts.linkedTo(node);
        if (linkedTo !== undefined) entry.linkedTo = linkedTo;
      }
      appendMetadataEntry(meta, entry);
    }
    this.#state.hash(this.#result, 0);
    this.#meta.hash(this.#result, 32);
    return this.#result.bytes;
  }
}

function entryOf(node: TreeNode, facts: NodeFacts): DigestEntry {
  const type = DIGEST_TYPE[node.type];
  if (type === null) throw new CairnError("damaged", "the tree has an entry of a type that no save point records");
  const device = type === "b" || type === "c";
  const entry: DigestEntry = {
    type,
    name: node.name,
    mode: node.mode,
    size: type === "f" ? node.size : 0,
    major: device ? Number((node.device >> 8n) & 0xfffn) + Number((node.device >> 32n) & 0xfffff000n) : 0,
    minor: device ? Number(node.device & 0xffn) + Number((node.device >> 12n) & 0xffffff00n) : 0,
    mtimeSec: node.mtimeSec,
    mtimeNs: node.mtimeNs,
    uid: node.uid,
    gid: node.gid,
    xattrs: node.xattrs,
  };
  if (type === "f") {
    const hash = contentHash(node, facts);
    if (hash !== null) entry.contentHash = hash;
  } else if (type === "l") entry.target = node.linktarget ?? EMPTY;
  const lossless = facts.lossless(node);
  if (lossless !== undefined) for (const field of lossless) applyLossless(entry, field);
  return entry;
}

function contentHash(node: TreeNode, facts: NodeFacts): Uint8Array | null {
  const content = node.content ?? EMPTY;
  if (content.length === 0) return NOTHING;
  return content.length === 32 ? content : facts.fileHash(node);
}

function applyLossless(entry: DigestEntry, field: LosslessField): void {
  switch (field.field) {
    case "linktarget":
      entry.target = field.value;
      return;
    case "xattr_name": {
      const { index, value } = field;
      entry.xattrs = entry.xattrs.map((attribute, i) =>
        i === index ? { name: value, value: attribute.value } : attribute,
      );
      return;
    }
    case "mtime": {
      const [seconds, nanoseconds] = Buffer.from(field.value).toString("latin1").split(".");
      entry.mtimeSec = Number(seconds);
      entry.mtimeNs = Number(nanoseconds);
      return;
    }
    default:
  }
}
