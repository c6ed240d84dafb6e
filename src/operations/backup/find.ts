import type { TreeNode } from "../../formats/tree.ts";
import { displayPath } from "../../fs/safe-path.ts";
import { newPacer } from "../../pacer.ts";
import { CairnError } from "../../errors.ts";
import type { FindInBackupsOptions, FindInBackupsResult, FoundInBackup } from "../contract.ts";
import { findSnapshot } from "./find-snapshot.ts";
import { isChosen } from "./list.ts";
import { type Look, looking } from "./look.ts";
import { byTime } from "./public-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { nameOf, readNodes } from "./snapshot-content.ts";

const LIMIT = 10_000;

/**
 * Looks for a name in snapshots, newest first. A tree that several snapshots share at the same path is read once. A pattern
 * with a slash is compared with whole paths (from `/`), any other with names.
 */
export async function findInBackups(
  access: RepositoryAccess,
  pattern: string,
  options: FindInBackupsOptions,
): Promise<FindInBackupsResult> {
  const fits = matcher(pattern, options.ignoreCase === true);
  const limit = options.limit ?? LIMIT;
  return looking(access, options, async (look) => {
    const { snapshots } = await access.repository.listSnapshots(options.signal);
    const named = (options.snapshots ?? []).map((word) => findSnapshot(snapshots, word).id);
    const chosen = snapshots
      .filter(({ id, snapshot }) => (named.length === 0 ? isChosen(snapshot, options) : named.includes(id)))
      .sort(byTime)
      .toReversed();
    const walk = new FindWalk(look, fits, options.signal);
    const found: FoundInBackup[] = [];
    for (const { id, snapshot } of chosen) {
      for (const hit of await walk.tree(Buffer.from(snapshot.tree, "hex"), "")) {
        if (found.length >= limit) return { ...access.info, found, truncated: true };
        found.push({ ...hit, snapshot_id: id, created_at: snapshot.time });
      }
    }
    return { ...access.info, found, truncated: false };
  });
}

type Hit = Omit<FoundInBackup, "snapshot_id" | "created_at">;

class FindWalk {
  readonly #look: Look;
  readonly #fits: (path: string) => boolean;
  readonly #pace: ReturnType<typeof newPacer>;
  /** By path and tree: what was found below. */
  readonly #known = new Map<string, Hit[]>();

  constructor(look: Look, fits: (path: string) => boolean, signal: AbortSignal | undefined) {
    this.#look = look;
    this.#fits = fits;
    this.#pace = newPacer(signal);
  }

  async tree(id: Uint8Array, path: string): Promise<Hit[]> {
    const key = `${path}\0${Buffer.from(id).toString("latin1")}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    await this.#pace();
    const hits: Hit[] = [];
    for (const node of await readNodes(this.#look, id)) {
      const own = `${path}/${nameOf(node)}`;
      if (this.#fits(own)) hits.push(hitOf(node, own));
      if (node.subtree !== undefined) hits.push(...(await this.tree(node.subtree, own)));
    }
    this.#known.set(key, hits);
    return hits;
  }
}

function hitOf(node: TreeNode, path: string): Hit {
  return {
    ...displayPath(Buffer.from(path, "latin1")),
    kind: node.type === "dir" ? "directory" : node.type,
    size: node.type === "file" ? node.size : null,
    modified_at: new Date(Math.max(-8.64e15, Math.min(8.64e15, node.mtimeSec * 1000))).toISOString(),
  };
}

/** Whether a path in latin1, from `/`, fits. Throws `usage` for an empty pattern. */
export function matcher(pattern: string, ignoreCase: boolean): (path: string) => boolean {
  if (pattern === "") throw new CairnError("usage", "the pattern is empty");
  const isPath = pattern.includes("/");
  const source = expressionOf(Buffer.from(pattern, "utf8").toString("latin1"));
  const anchored = isPath && !pattern.startsWith("/") ? `(?:.*/)?${source}` : source;
  const expression = new RegExp(`^${anchored}$`, ignoreCase ? "is" : "s");
  return (path) => expression.test(isPath ? path : path.slice(path.lastIndexOf("/") + 1));
}

function expressionOf(pattern: string): string {
  let source = "";
  for (let at = 0; at < pattern.length; at++) {
    const char = pattern[at]!;
    const set = char === "[" ? /^\[([!^]?)([^\]]+)\]/.exec(pattern.slice(at)) : null;
    if (set !== null) {
      source += `[${set[1] === "" ? "" : "^"}${set[2]!.replace(/[\\[\]^]/g, "\\$&")}]`;
      at += set[0].length - 1;
    } else if (char === "*" && pattern[at + 1] === "*") {
      source += ".*";
      at++;
    } else if (char === "*") source += "[^/]*";
    else if (char === "?") source += "[^/]";
    else source += char.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  }
  return source;
}
