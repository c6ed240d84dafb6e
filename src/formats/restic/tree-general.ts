import { CairnError } from "../../errors.ts";
import { compareBytes } from "../bytes.ts";
import { unquoteGoName } from "./go-json.ts";
import { formatTime, type Instant, parseTime } from "../go-time.ts";
import { jsonElements, jsonMembers, jsonText } from "./json-scan.ts";
import {
  goModeOf,
  isEntryName,
  NODE_TYPES,
  unixModeOf,
  type ForeignNode,
  type NodeAttribute,
  type NodeType,
  type TreeNode,
  type TreeNodes,
} from "./tree-node.ts";

/** Decodes any valid JSON of a restic tree, from any writer. Errors name the invalid node and member. */

const KNOWN = new Set(
  (
    "name type mode mtime atime ctime uid gid user group inode device_id size links linktarget linktarget_raw " +
    "extended_attributes generic_attributes device content subtree"
  ).split(" "),
);

function damaged(what: string): CairnError {
  return new CairnError("damaged", `tree: ${what}`);
}

/** The members of one node, and the node's label for messages. */
class Members {
  readonly label: string;
  readonly #sources: Map<string, string>;

  constructor(sources: Map<string, string>, label: string) {
    this.#sources = sources;
    this.label = label;
  }

  /** Returns the source text. Null members count as absent, as in Go. */
  source(key: string): string | undefined {
    const source = this.#sources.get(key);
    return source === "null" ? undefined : source;
  }

  text(key: string): string {
    const source = this.source(key);
    if (source === undefined) return "";
    if (source[0] !== '"') throw damaged(`${this.label}: ${key} is not a string`);
    return JSON.parse(source) as string;
  }

  /** Reads an unsigned integer up to `max` from its source text. */
  big(key: string, max: bigint): bigint {
    const source = this.source(key);
    if (source === undefined) return 0n;
    if (!/^\d{1,20}$/.test(source)) throw damaged(`${this.label}: ${key} is not an unsigned integer`);
    const value = BigInt(source);
    if (value > max) throw damaged(`${this.label}: ${key} is out of range`);
    return value;
  }

  integer(key: string, max: number): number {
    return Number(this.big(key, BigInt(max)));
  }

  base64(key: string): Uint8Array | undefined {
    if (this.source(key) === undefined) return undefined;
    const text = this.text(key);
    const value = Buffer.from(text, "base64");
    if (value.toString("base64") !== text) throw damaged(`${this.label}: ${key} is not base64`);
    return value;
  }

  rest(): string | undefined {
    let rest = "";
    for (const [key, source] of this.#sources) if (!KNOWN.has(key)) rest += `,${JSON.stringify(key)}:${source}`;
    return rest === "" ? undefined : rest;
  }
}

function idBytes(hex: string, label: string): Uint8Array {
  if (!/^[0-9a-f]{64}$/.test(hex)) throw damaged(`${label}: not an id`);
  return Buffer.from(hex, "hex");
}

/** Go's text of a missing time. rustic writes it for the folders above the saved one. */
const NO_TIME = "0001-01-01T00:00:00Z";
const NEVER: Instant = { seconds: 0, nanoseconds: 0 };

function readTimes(members: Members, node: TreeNode, goMode: number): void {
  const text = members.text("mtime");
  const instant = text === "" ? NEVER : parseTime(text);
  const mtime = text || NO_TIME;
  if (instant === null) throw damaged(`${members.label}: mtime is not a time`);
  node.mtimeSec = instant.seconds;
  node.mtimeNs = instant.nanoseconds;
  const foreign: ForeignNode = {
    mtime,
    atime: members.text("atime") || mtime,
    ctime: members.text("ctime") || mtime,
  };
  if (parseTime(foreign.atime) === null) throw damaged(`${members.label}: atime is not a time`);
  if (parseTime(foreign.ctime) === null) throw damaged(`${members.label}: ctime is not a time`);
  if (goMode !== goModeOf(node.type, node.mode)) foreign.goMode = goMode;
  const generic = members.source("generic_attributes");
  if (generic !== undefined) foreign.genericAttributes = generic;
  const rest = members.rest();
  if (rest !== undefined) foreign.rest = rest;
  const ours = foreign.atime === mtime && foreign.ctime === mtime && mtime === formatTime(node.mtimeSec, node.mtimeNs);
  if (!ours || foreign.goMode !== undefined || generic !== undefined || rest !== undefined) node.foreign = foreign;
}

function readAttributes(members: Members): NodeAttribute[] {
  const source = members.source("extended_attributes");
  if (source === undefined) return [];
  const elements = jsonElements(source);
  if (elements === null) throw damaged(`${members.label}: extended_attributes is not a list`);
  return elements.map((element) => {
    const sources = jsonMembers(element);
    if (sources === null) throw damaged(`${members.label}: an extended attribute is not an object`);
    const attribute = new Members(sources, `${members.label}: extended attribute`);
    const name = Buffer.from(attribute.text("name"), "utf8");
    return { name, value: attribute.base64("value") ?? new Uint8Array(0) };
  });
}

function readContent(members: Members, node: TreeNode): void {
  const source = members.source("content");
  if (source !== undefined || node.type === "file") {
    const elements = jsonElements(source ?? "[]");
    if (elements === null) throw damaged(`${members.label}: content is not a list`);
    const ids = new Uint8Array(elements.length * 32);
    elements.forEach((element, i) => ids.set(idBytes(element.slice(1, -1), `${members.label}: content`), i * 32));
    // Other types have no content; a list there is ignored, as in restic.
    if (node.type === "file") node.content = ids;
  }
  const subtree = members.source("subtree");
  if (node.type !== "dir") return;
  if (subtree === undefined) throw damaged(`${members.label}: a directory without subtree`);
  node.subtree = idBytes(subtree.slice(1, -1), `${members.label}: subtree`);
}

function readNode(source: string, index: number): TreeNode {
  const sources = jsonMembers(source);
  if (sources === null) throw damaged(`node ${index} is not an object`);
  const members = new Members(sources, `node ${index}`);
  const name = unquoteGoName(members.text("name"));
  if (name === null || !isEntryName(name)) throw damaged(`node ${index}: its name cannot be a file name`);
  const type = members.text("type") as NodeType;
  if (!NODE_TYPES.includes(type)) throw damaged(`node ${index}: unknown type`);
  const goMode = members.integer("mode", 0xffffffff);
  const max = (1n << 64n) - 1n;
  const node: TreeNode = {
    name,
    type,
    mode: unixModeOf(goMode),
    mtimeSec: 0,
    mtimeNs: 0,
    uid: members.integer("uid", 0xffffffff),
    gid: members.integer("gid", 0xffffffff),
    user: members.text("user"),
    group: members.text("group"),
    inode: members.big("inode", max),
    deviceId: members.big("device_id", max),
    links: members.integer("links", Number.MAX_SAFE_INTEGER),
    size: members.integer("size", Number.MAX_SAFE_INTEGER),
    xattrs: readAttributes(members),
    device: members.big("device", max),
  };
  const target = members.base64("linktarget_raw") ?? Buffer.from(members.text("linktarget"), "utf8");
  if (target.length > 0) node.linktarget = target;
  readTimes(members, node, goMode);
  readContent(members, node);
  return node;
}

/** Decodes the nodes of any valid encoding, sorted by name. Throws `damaged`. */
export function decodeGeneralTree(bytes: Uint8Array): TreeNodes {
  const members = jsonMembers(jsonText(bytes, "tree"));
  const source = members?.get("nodes");
  const elements = source === "null" ? [] : source === undefined ? null : jsonElements(source);
  if (elements === null) throw damaged("not a list of nodes");
  const nodes = elements.map(readNode).sort((a, b) => compareBytes(a.name, b.name));
  if (nodes.some(({ name }, i) => i > 0 && compareBytes(nodes[i - 1]!.name, name) === 0))
    throw damaged("two nodes have the same name");
  return nodes;
}
