import { decodeTree, type TreeNode } from "./tree.ts";

/**
 * Cuts a tree blob into its nodes without decoding them: two trees that are mostly equal are compared by bytes, and
 * only different nodes are decoded.
 */

const HEAD = Buffer.from('{"nodes":[');
const FIRST = Buffer.from('{"name":"');
const NEXT = Buffer.from('},{"name":"');
const TYPE = Buffer.from(',"type":"');
const TAIL = Buffer.from("]}\n");
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

export interface TreeSlices {
  bytes: Buffer;
  /** begin of each node, and one past the last node's separator */
  starts: number[];
}

/** Returns null if the bytes are not in Cairn's encoding; then decode the whole tree. */
export function sliceTree(tree: Uint8Array): TreeSlices | null {
  const bytes = Buffer.from(tree.buffer, tree.byteOffset, tree.byteLength);
  const end = bytes.length - TAIL.length;
  if (
    end < HEAD.length ||
    bytes.compare(HEAD, 0, HEAD.length, 0, HEAD.length) !== 0 ||
    bytes.compare(TAIL, 0, TAIL.length, end) !== 0
  )
    return null;
  if (end === HEAD.length) return { bytes, starts: [HEAD.length] };
  if (bytes.compare(FIRST, 0, FIRST.length, HEAD.length, HEAD.length + FIRST.length) !== 0) return null;
  const starts = [HEAD.length];
  for (let at = HEAD.length; ;) {
    at = bytes.indexOf(NEXT, at + 1);
    if (at < 0 || at >= end) break;
    // `NEXT` also stands between two extended attributes of a node. Only the name of a node is followed by a type.
    const close = closingQuote(bytes, at + NEXT.length);
    if (bytes.compare(TYPE, 0, TYPE.length, close + 1, close + 1 + TYPE.length) === 0) starts.push(at + 2);
  }
  starts.push(end + 1);
  return { bytes, starts };
}

function closingQuote(bytes: Uint8Array, from: number): number {
  let at = from;
  while (bytes[at] !== QUOTE && at < bytes.length) at += bytes[at] === BACKSLASH ? 2 : 1;
  return at;
}

/** Decodes one node of a cut tree. */
export function nodeOfSlice({ bytes, starts }: TreeSlices, index: number): TreeNode {
  return decodeTree(Buffer.concat([HEAD, bytes.subarray(starts[index]!, starts[index + 1]! - 1), TAIL])).at(0)!;
}

/** True if two nodes have the same bytes. */
export function sameSlice(a: TreeSlices, i: number, b: TreeSlices, j: number): boolean {
  return a.bytes.compare(b.bytes, b.starts[j]!, b.starts[j + 1]! - 1, a.starts[i]!, a.starts[i + 1]! - 1) === 0;
}
