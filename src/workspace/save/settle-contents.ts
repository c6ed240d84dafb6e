import type { TreeNode } from "../../formats/restic/tree.ts";
import { joinRaw } from "../../fs/paths/safe-path.ts";
import type { Pacer } from "../../pacer.ts";
import { contentOf, sameContent } from "../points/same-content.ts";
import { type Difference, differences } from "../points/tree-diff.ts";

/** Settles differences of two trees whose inodes tell only that contents may differ. */

/** Paths of the two compared trees. */
interface Roots {
  from: Buffer;
  to: Buffer;
}

/** Returns a difference with its two sides exchanged. */
export function turnedRound(difference: Difference): Difference {
  return { ...difference, before: difference.after, after: difference.before };
}

/**
 * Settles differences of files: compares the contents if no other aspect differs, and drops equal files. With `exactly`
 * compares the contents of all listed files, and reads added and removed files.
 */
export async function settled(
  listed: readonly Difference[],
  roots: Roots,
  { exactly, pace }: { exactly: boolean; pace: Pacer },
): Promise<Difference[]> {
  const found: Difference[] = [];
  for (const each of listed) {
    const isOpen = each.aspects.includes("content") && (exactly || each.aspects.length === 1);
    const known = isOpen && (await hasSameContent(each, roots, pace)) ? withSameContent(each) : each;
    if (known.before === null || known.after === null || known.aspects.length > 0) found.push(known);
  }
  return exactly ? withContents(found, roots, pace) : found;
}

/** Tells if a path that has files in both trees has the same content in them. */
export async function hasSameContent(
  { path, before, after }: Difference,
  { from, to }: Roots,
  pace: Pacer,
): Promise<boolean> {
  if (before?.type !== "file" || after?.type !== "file" || before.size !== after.size) return false;
  return sameContent(joinRaw(from, path), joinRaw(to, path), pace);
}

function withSameContent(difference: Difference): Difference {
  const { before, after } = difference as { before: TreeNode; after: TreeNode };
  const same: TreeNode = { ...after };
  if (before.content !== undefined) same.content = before.content;
  return { ...difference, after: same, aspects: differences(before, same) };
}

/** Reads the content of added and removed files of equal size, which may be renamed files. */
async function withContents(found: readonly Difference[], { from, to }: Roots, pace: Pacer): Promise<Difference[]> {
  const sizes = { before: new Set<number>(), after: new Set<number>() };
  for (const { before, after } of found) {
    if (after === null && before?.type === "file") sizes.before.add(before.size);
    if (before === null && after?.type === "file") sizes.after.add(after.size);
  }
  const withContent = async (node: TreeNode, root: Buffer, path: Uint8Array): Promise<TreeNode> => {
    const content = await contentOf(joinRaw(root, path), pace);
    return content === null ? node : { ...node, content };
  };
  const all: Difference[] = [];
  for (const each of found) {
    const { path, before, after } = each;
    if (after === null && before?.type === "file" && sizes.after.has(before.size))
      all.push({ ...each, before: await withContent(before, from, path) });
    else if (before === null && after?.type === "file" && sizes.before.has(after.size))
      all.push({ ...each, after: await withContent(after, to, path) });
    else all.push(each);
  }
  return all;
}
