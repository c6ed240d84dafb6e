import { exactNode, losslessByPath } from "../../engines/write/exact-nodes.ts";
import { CairnError } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/manifest.ts";
import { rawPath, recordPath } from "../../formats/record.ts";
import type { TreeNode } from "../../formats/tree.ts";
import { printablePath, quotedPath, rawBytes, shellQuote } from "../../fs/safe-path.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { lackingIn } from "../../workspace/record-point.ts";
import type { PathInput } from "../contract.ts";
import { kindOf } from "../diff.ts";
import { baseOf, pathBelow } from "./chosen-paths.ts";
import type { Look } from "./look.ts";
import { nameOf, readNodes, savedNodes, type SnapshotContent } from "./snapshot-content.ts";

/**
 * What a snapshot holds of one folder, as if that alone had been saved; all of it where none is named, or the saved one.
 * Paths are those of `pathBelow`. No link is followed. `not_found`, `conflict` for what is no folder, `usage`.
 */
export async function contentOf<T extends SnapshotContent>(
  look: Look,
  { listed, content }: { listed: ListedSnapshot; content: T },
  subfolder: PathInput | undefined,
): Promise<T | SnapshotContent> {
  if (subfolder === undefined) return content;
  const { paths } = listed.snapshot;
  const path = pathBelow(content, paths, subfolder);
  if (path.length === 0) return content;
  const { manifest } = content;
  const found = await folderAt(look, { listed, content }, path);
  const base = baseOf(content, paths);
  return {
    ...content,
    root: found.subtree!,
    only: null,
    node: exactNode(found, losslessByPath(manifest?.lossless ?? []).get(latin1(path))),
    manifest: manifest === null ? null : manifestBelow(manifest, path),
    part: { path, whole: base.equals(SLASH) ? Buffer.concat([SLASH, path]) : joinPath(base, path) },
  };
}

async function folderAt(
  look: Look,
  { listed: { id }, content }: { listed: ListedSnapshot; content: SnapshotContent },
  path: Buffer,
): Promise<TreeNode> {
  const names = latin1(path).split("/");
  const snapshot = id.slice(0, 8);
  let nodes = await savedNodes(look, content);
  for (let depth = 1; ; depth++) {
    const node = nodes.find((each) => nameOf(each) === names[depth - 1]);
    if (node === undefined) throw notThere(path, { snapshot, manifest: content.manifest });
    const at = Buffer.from(names.slice(0, depth).join("/"), "latin1");
    if (node.type !== "dir") throw noFolder(at, node, snapshot);
    if (depth === names.length) return node;
    nodes = await readNodes(look, node.subtree!);
  }
}

function notThere(path: Buffer, of: { snapshot: string; manifest: Manifest | null }): CairnError {
  const { snapshot, manifest } = of;
  const [lacking] = lackingIn(manifest && { omitted: manifest.omitted }, [path]);
  const why = lacking === undefined ? "" : `: ${printablePath(lacking.path)} is not in it (${lacking.detail})`;
  return new CairnError("not_found", `there is no folder ${quotedPath(path)} in snapshot ${snapshot}${why}`, {
    hint: path.includes(LOST)
      ? "a folder whose name is not UTF-8 is restored by its path, with --path-b64"
      : `\`cairn backup show ${snapshot}\` lists what is in it, and \`cairn backup find\` looks for a name in all snapshots`,
  });
}

/** What stands for bytes that are not UTF-8 where a line has lost them. */
const LOST = Buffer.from("\ufffd");

function noFolder(path: Buffer, node: TreeNode, snapshot: string): CairnError {
  const target =
    node.type === "symlink" ? `; it leads to ${quotedPath(node.linktarget!)}, and no link is followed` : "";
  const named = shellQuote(printablePath(path));
  return new CairnError(
    "conflict",
    `${quotedPath(path)} is no folder in snapshot ${snapshot}, but a ${kindOf(node)}${target}`,
    {
      hint: `\`cairn backup restore ${snapshot} ${named} --to DIR\` restores it by its path, and \`cairn backup show ${snapshot}:${named}\` shows it`,
    },
  );
}

/**
 * What a manifest says of what lies below a folder, by the paths from there. It has no digests of that, and its counts are
 * those of the whole.
 */
function manifestBelow(manifest: Manifest, folder: Buffer): Manifest {
  const lead = Buffer.concat([folder, SLASH]);
  const below = (path: Uint8Array): Uint8Array | null => {
    const raw = rawBytes(path);
    if (raw.equals(folder)) return raw.subarray(raw.length);
    return raw.subarray(0, lead.length).equals(lead) ? raw.subarray(lead.length) : null;
  };
  const moved = <T extends { path: Uint8Array }>(list: readonly T[]): T[] =>
    list.flatMap((each) => {
      const path = below(each.path);
      return path === null ? [] : [{ ...each, path }];
    });
  return {
    ...manifest,
    stateDigest: null,
    metadataDigest: null,
    labels: manifest.labels.flatMap(({ path_b64, ...label }) => {
      const path = below(rawPath(path_b64 === undefined ? label : { ...label, path_b64 }));
      return path === null ? [] : [{ ...label, ...recordPath(path) }];
    }),
    holeMaps: moved(manifest.holeMaps),
    fileHashes: moved(manifest.fileHashes),
    omitted: moved(manifest.omitted),
    // Names of one entry have one value, wherever the first of them lies.
    lossless: moved(manifest.lossless),
    mounts: undefined,
  };
}

const SLASH = Buffer.from("/");
