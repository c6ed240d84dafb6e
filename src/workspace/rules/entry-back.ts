import type { TreeNode } from "../../formats/restic/tree.ts";
import { isOwnId } from "../../fs/linux/user-namespace.ts";
import { type DiffAspect, differences } from "../points/tree-diff.ts";
import type { TextMerge } from "./merge-text.ts";

/** One change of one entry. `index`: the number of the change; 0 is the newest. */
export interface Step {
  index: number;
  found: TreeNode | null;
  left: TreeNode | null;
}

/** Aspects that are compared each for itself. Edits of times and of hard links never keep an entry. */
const ASPECTS = ["content", "mode", "owner", "xattrs", "times", "links"] as const;
type Aspect = (typeof ASPECTS)[number];
const SILENT: ReadonlySet<DiffAspect> = new Set(["times", "links"]);

/** Goes back through the steps of one entry. */
export class EntryBack {
  wanted: TreeNode | null;
  /** number of the last change that was taken back */
  wantedOf = Infinity;
  readonly #stopped = new Set<Aspect>();
  readonly #keepsModes: boolean;

  constructor(present: TreeNode | null, keepsModes: boolean) {
    this.wanted = present;
    this.#keepsModes = keepsModes;
  }

  get stopped(): Aspect[] {
    return [...this.#stopped].filter((aspect) => !SILENT.has(aspect));
  }

  /** Leaves the entry as it is from here on, unless it is as the step found it. */
  stopAt({ found, left }: Step): void {
    const { wanted: now } = this;
    if (isSilent(found, left)) return;
    if (now === null || found === null) {
      if (now !== found) this.#stopped.add("content");
    } else for (const aspect of ASPECTS) if (differ(aspect, now, found)) this.#stopped.add(aspect);
  }

  takeBack({ index, found, left }: Step): void {
    const { wanted: now } = this;
    if (found === null || left === null || now === null || found.type !== now.type || left.type !== now.type)
      this.#takeWhole(now, { found, left });
    else for (const aspect of ASPECTS) this.#takeAspect(aspect, { now, found, left });
    if (this.wanted !== now) this.wantedOf = index;
  }

  /** Takes back the making or the removal of an entry. */
  #takeWhole(now: TreeNode | null, { found, left }: Omit<Step, "index">): void {
    if (this.#stopped.has("content") || isSilent(found, left)) return;
    if (isSameContent(now, found)) {
      // A directory that stayed for other entries gets its time again.
      if (now?.type === "dir") this.wanted = { ...now, ...PARTS.times(found!) };
      return;
    }
    if (!isSameContent(now, left)) return void this.#stopped.add("content");
    // An entry that goes would take a mode and attributes along that somebody else set.
    const edited = now === null || left === null ? [] : ASPECTS.filter((each) => this.#isEdit(each, now, left));
    if (edited.length === 0) this.wanted = found;
    for (const aspect of edited) this.#stopped.add(aspect);
  }

  /** Merges a text that was edited since the step. */
  merge(path: Uint8Array, { found, left }: Step, texts: TextMerge): void {
    const { wanted: now } = this;
    if (!this.#stopped.has("content") || now === null || found === null || left === null) return;
    const merged = texts.merge(path, { base: left, ours: now, theirs: found });
    if (merged === null) return;
    this.wanted = merged;
    this.#stopped.delete("content");
  }

  #takeAspect(aspect: Aspect, { now, found, left }: { now: TreeNode; found: TreeNode; left: TreeNode }): void {
    if (this.#stopped.has(aspect) || !differ(aspect, now, found)) return;
    const isLost = aspect === "owner" && !isSameContent(this.wanted, now) && isOwnedByWriter(now, left);
    if (isLost) this.wanted = { ...this.wanted!, ...PARTS.owner(found) };
    if (isLost || !differ(aspect, found, left)) return;
    if (differ(aspect, now, left)) this.#stopped.add(aspect);
    else this.wanted = { ...this.wanted!, ...(aspect === "content" ? contentOf(found) : PARTS[aspect](found)) };
  }

  #isEdit(aspect: Aspect, now: TreeNode, left: TreeNode): boolean {
    // A restore without the right to set an owner leaves its own user's, and drops the set-id bits.
    if (SILENT.has(aspect) || aspect === "owner" || (aspect === "mode" && !this.#keepsModes)) return false;
    if (aspect === "mode" && differ("owner", now, left)) return ((now.mode ^ left.mode) & ~SET_ID_BITS) !== 0;
    return differ(aspect, now, left);
  }
}

/** Tells if a change was one of times or of hard links alone. */
function isSilent(found: TreeNode | null, left: TreeNode | null): boolean {
  return found !== null && left !== null && differences(found, left).every((aspect) => SILENT.has(aspect));
}

/** Tells if two entries are of one type and content. */
export function isSameContent(a: TreeNode | null, b: TreeNode | null): boolean {
  return a === null || b === null ? a === b : !differ("content", a, b);
}

function differ(aspect: Aspect, a: TreeNode, b: TreeNode): boolean {
  const found = differences(a, b);
  if (aspect !== "content") return found.includes(aspect);
  return found.some((each) => each === "content" || each === "type" || each === "target");
}

const SET_ID_BITS = 0o6000;

/**
 * True if a file of another user was replaced by this process's user, who may not change owners: nobody edited the
 * owner. Undo asks for the old owner again, so that its result names the owner that it cannot set.
 */
function isOwnedByWriter(now: TreeNode, left: TreeNode): boolean {
  return process.geteuid!() !== 0 && isOwnId(now.uid) && !isOwnId(left.uid);
}

/** The members of a node that belong to an aspect. */
const PARTS: Readonly<Record<Exclude<Aspect, "content">, (node: TreeNode) => Partial<TreeNode>>> = {
  mode: ({ mode }) => ({ mode }),
  owner: ({ uid, gid, user, group }) => ({ uid, gid, user, group }),
  xattrs: ({ xattrs }) => ({ xattrs }),
  times: ({ mtimeSec, mtimeNs }) => ({ mtimeSec, mtimeNs }),
  links: ({ inode, links }) => ({ inode, links }),
};

/** Content comes back with its own times and other names, and with the mode, the owner and the attributes that the entry has. */
export function contentOf(found: TreeNode): Partial<TreeNode> {
  const { mode: _mode, uid: _uid, gid: _gid, user: _user, group: _group, xattrs: _xattrs, ...content } = found;
  return content;
}
