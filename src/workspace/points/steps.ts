import type { NodeMetadata, NodeType } from "../../formats/restic/tree.ts";
import type { Identity } from "../../archive/scan/find-record.ts";
import { sha256, Sha256Stream } from "../../crypto/hash.ts";
import { CairnError } from "../../errors.ts";
import { Fields, parseJson } from "../../formats/fields.ts";
import { decodeRecord, encodeRecord } from "../../formats/records/record.ts";
import { splitRaw } from "../../fs/paths/safe-path.ts";
import type { LeftOutEntry } from "./left-out.ts";
import { type Listed, PackedList } from "./packed-list.ts";

/** Metadata to set on an entry whose content is already right. */
export interface StepMetadata extends Omit<NodeMetadata, "xattrs"> {
  xattrs: { name: string; value: string }[];
  /** names of attributes to remove, base64 */
  dropXattrs: string[];
}

/**
 * One change of the workspace. The journal of a restore is a list of steps. Each step can be repeated after a kill:
 * `inode` names the staged entry that it wrote, `old` the entry that it displaces.
 */
export type Step =
  | { op: "remove"; path: Uint8Array; old: Identity; kept: number }
  | { op: "rmdir"; path: Uint8Array; old: Identity }
  | { op: "mkdir"; path: Uint8Array }
  | { op: "put"; path: Uint8Array; staged: number; inode: string; old: Identity | null }
  | {
      op: "write";
      path: Uint8Array;
      staged: number;
      inode: string;
      old: Identity;
      /** digests of the old content, which is written over in place, and of the staged content, in hex */
      oldSha256: string;
      sha256: string;
      metadata: StepMetadata;
    }
  | { op: "meta"; path: Uint8Array; old: Identity; metadata: StepMetadata }
  | { op: "dirmeta"; path: Uint8Array; metadata: StepMetadata };

export type Steps = Listed<Step>;

/** Name of a staged entry in the staging directory. */
export function stagedName(number: number): string {
  return `n${number}`;
}

/** Name in the staging directory of a displaced entry that no staged entry was exchanged with. */
export function displacedName(number: number): string {
  return `d${number}`;
}

export function metadataOf(node: NodeMetadata, before: NodeMetadata | null): StepMetadata {
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");
  const names = new Set(node.xattrs.map(({ name }) => base64(name)));
  return {
    type: node.type,
    mode: node.mode,
    uid: node.uid,
    gid: node.gid,
    mtimeSec: node.mtimeSec,
    mtimeNs: node.mtimeNs,
    xattrs: node.xattrs.map(({ name, value }) => ({ name: base64(name), value: base64(value) })),
    dropXattrs: (before?.xattrs ?? []).map(({ name }) => base64(name)).filter((name) => !names.has(name)),
  };
}

/** Converts metadata to the form that the writer of nodes takes. */
export function nodeOfMetadata({ dropXattrs: _dropXattrs, xattrs, ...metadata }: StepMetadata): NodeMetadata {
  const bytes = (base64: string): Buffer => Buffer.from(base64, "base64");
  return { ...metadata, xattrs: xattrs.map(({ name, value }) => ({ name: bytes(name), value: bytes(value) })) };
}

/** The steps of a restore, and entries that will not become like the target. */
interface StepsFile {
  steps: Steps;
  leftOut: readonly LeftOutEntry[];
}

const FORMAT = "cairn.restore-steps";
/** Version 2 has steps that write in place, which older programs cannot finish. */
const VERSION = 2;

/**
 * Encodes JSON lines: format and version, left-out entries, the steps in order, and a last line with the SHA-256 of all
 * lines before it. The pieces stay valid.
 */
export function* encodeSteps({ steps, leftOut }: StepsFile): Generator<Uint8Array> {
  const left = leftOut.map((each) => ({ op: LEFT_OUT, ...each }));
  const hash = new Sha256Stream();
  const version = Iterator.from(steps).some(({ op }) => op === "write") ? VERSION : 1;
  let lines = Buffer.from(encodeRecord({}, FORMAT, version)).toString("latin1");
  const written = (): Uint8Array => {
    const bytes = Buffer.from(lines);
    hash.update(bytes);
    lines = "";
    return bytes;
  };
  for (const list of [left, steps])
    for (const each of list) {
      lines += `${JSON.stringify({ ...each, path: Buffer.from(each.path).toString("base64") })}\n`;
      if (lines.length > PIECE) yield written();
    }
  yield written();
  yield Buffer.from(endLine(hash.digest()));
}

const PIECE = 64 << 10;

const LEFT_OUT = "left_out";

function endLine(digest: Uint8Array): string {
  return `${JSON.stringify({ op: "end", sha256: Buffer.from(digest).toString("hex") })}\n`;
}

/** Decodes the steps. Throws `damaged` unless the file is exactly as written, or `newer_version`. */
export function decodeSteps(bytes: Uint8Array): { steps: Steps; leftOut: LeftOutEntry[] } {
  const steps = new PackedList<Step>();
  const leftOut: LeftOutEntry[] = [];
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const head = text.indexOf(10) + 1;
  decodeRecord(text.subarray(0, head), FORMAT, VERSION);
  const lines = text.subarray(0, text.lastIndexOf(10, -2) + 1);
  if (text.subarray(lines.length).toString("latin1") !== endLine(sha256(lines)))
    throw new CairnError("damaged", "the checksum of a restore's steps does not match");
  for (let at = head, end: number; at < lines.length; at = end + 1) {
    end = lines.indexOf(10, at);
    if (end === at) continue;
    const step = parseJson(lines.subarray(at, end), "a step of a restore");
    const fields = new Fields(step, "a step of a restore");
    const op = fields.text("op");
    const path = pathOf(fields, op === LEFT_OUT || op === "dirmeta");
    CHECKS[op as keyof typeof CHECKS]?.(fields);
    if (op === LEFT_OUT) {
      const { op: _op, ...what } = step as { op: string };
      leftOut.push({ ...what, path } as unknown as LeftOutEntry);
    } else if (Object.hasOwn(CHECKS, op)) steps.push({ ...(step as object), path } as unknown as Step);
    else throw fields.wrong("op", "a step of a restore");
  }
  return { steps, leftOut };
}

/** Reads a path. `orRoot`: the folder itself is allowed, too. */
function pathOf(fields: Fields, orRoot: boolean): Uint8Array {
  const path = fields.base64("path");
  try {
    if (splitRaw(path).length > 0 || orRoot) return path;
  } catch {
    // As below.
  }
  throw fields.wrong("path", "a path within the folder");
}

const CHECKS: Record<Step["op"], (fields: Fields) => void> = {
  remove: (fields) => {
    checkIdentity(fields.object("old"));
    fields.integer("kept");
  },
  rmdir: (fields) => checkIdentity(fields.object("old")),
  mkdir: () => undefined,
  put: (fields) => {
    // The number becomes a part of a file name.
    fields.integer("staged");
    checkInode(fields);
    const old = fields.objectOrNull("old");
    if (old !== null) checkIdentity(old);
  },
  write: (fields) => {
    fields.integer("staged");
    checkInode(fields);
    checkIdentity(fields.object("old"));
    for (const key of ["oldSha256", "sha256"]) fields.hex(key, 64);
    checkMetadata(fields.object("metadata"));
  },
  meta: (fields) => {
    checkIdentity(fields.object("old"));
    checkMetadata(fields.object("metadata"));
  },
  dirmeta: (fields) => checkMetadata(fields.object("metadata")),
};

const TYPES: readonly NodeType[] = ["file", "dir", "symlink", "dev", "chardev", "fifo", "socket"];
const NANOSECONDS = 999_999_999;

function checkIdentity(old: Fields): void {
  checkInode(old);
  for (const key of ["mode", "size", "links"]) old.integer(key);
  for (const key of ["mtime", "ctime"]) {
    old.integer(`${key}Sec`, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER);
    old.integer(`${key}Ns`, NANOSECONDS);
  }
}

function checkInode(fields: Fields): void {
  if (!/^\d{1,20}$/.test(fields.text("inode"))) throw fields.wrong("inode", "decimal digits");
}

function checkMetadata(metadata: Fields): void {
  if (!TYPES.some((type) => metadata.isText("type", type))) throw metadata.wrong("type", `one of ${TYPES.join(", ")}`);
  metadata.integer("mode", 0o7777);
  for (const key of ["uid", "gid"]) metadata.integer(key, 0xffffffff);
  metadata.integer("mtimeSec", Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER);
  metadata.integer("mtimeNs", NANOSECONDS);
  metadata.list("xattrs", (element, label) => {
    const attribute = new Fields(element, label);
    attribute.base64("name");
    attribute.base64("value");
  });
  metadata.texts("dropXattrs");
}
