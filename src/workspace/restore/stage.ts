import fs from "node:fs";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { HoleList } from "../../archive/write/data-runs.ts";
import { isAnother, NodeWriter, type NotSet } from "../../archive/write/node-writer.ts";
import { type Identity, identityOf, RecordFinder } from "../../archive/scan/find-record.ts";
import { HeldFiles, type HeldTree } from "../../archive/write/held-files.ts";
import { canBeOne, type NodeMetadata, type TreeNode } from "../../formats/restic/tree.ts";
import { isAtOrBelow, quotedPath } from "../../fs/paths/safe-path.ts";
import { openDirectory, outsideOwner, putName } from "../../fs/linux/syscalls.ts";
import { newArena } from "../../native.ts";
import { toCairnError } from "../../errors.ts";
import type { LeftOutEntry } from "../points/left-out.ts";
import { newPacer, type Pacer, throttled } from "../../pacer.ts";
import { HeldDirectories, sameIdentity } from "./held-directories.ts";
import type { Progress } from "../../contract/words.ts";
import { PackedList } from "../points/packed-list.ts";
import type { Anchor } from "../rules/links.ts";
import { IN_PLACE, isForInPlace, stageInPlace } from "./in-place.ts";
import { OtherOwners, sharesDatabase, STAYS_WITH_DATABASE } from "./other-owners.ts";
import type { Plan, PlannedEntry } from "../rules/plan.ts";
import { metadataOf, stagedName, type Step, type StepMetadata, type Steps } from "../points/steps.ts";

interface StageInput {
  plan: Plan;
  target: TreeSource;
  /** the target's held tree, if any: files in it are not read from the store */
  held: HeldTree | null;
  /** scan of the present, for the times of directories that only get their entries exchanged */
  scan: ConstructorParameters<typeof RecordFinder>[0];
  /** the directory in which entries are staged */
  staging: string;
  holes: ReadonlyMap<string, HoleList>;
  /** damage throws `damaged`; else the damaged files are listed */
  throwsDamaged: boolean;
  /** a hard-link group's member that stays as it is, by the group's number */
  anchors: ReadonlyMap<bigint, Anchor>;
  root: Uint8Array;
  /** files of other users are replaced, even if their owner or group cannot be kept */
  takeOwnership: boolean;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: Omit<Progress, "phase">) => void) | undefined;
}

/** The steps that put staged entries in place, metadata that could not be set, and entries that could not be made. */
export interface StagedRestore {
  steps: Steps;
  notSet: readonly NotSet[];
  /** files whose content is damaged in the store */
  damaged: readonly LeftOutEntry[];
  /** present entries that their owner or group would lose */
  stays: readonly LeftOutEntry[];
}

/**
 * Writes all new entries into the staging directory. The workspace is not changed. An entry that cannot be made gets no
 * step: the present entry stays, with all below it. Order of steps: removed entries, removed directories, new
 * directories, new entries, metadata, times of directories.
 */
export async function stageRestore(input: StageInput): Promise<StagedRestore> {
  const stager = new Stager(input);
  try {
    return await stager.run();
  } finally {
    stager.close();
  }
}

/** A staged entry of a hard-link group. */
interface Member {
  node: TreeNode;
  path: Uint8Array;
  /** name in the staging directory */
  name: Buffer;
}

class Stager {
  readonly #input: StageInput;
  readonly #writer = new NodeWriter();
  readonly #finder: RecordFinder;
  /** The first staged member of each group. A group has several if its members differ in content. */
  readonly #groups = new Map<bigint, Member[]>();
  readonly #damaged: LeftOutEntry[] = [];
  readonly #stays: LeftOutEntry[] = [];
  readonly #owners: OtherOwners;
  /** latin1 paths of files that are written in place */
  readonly #inPlaces: string[] = [];
  /** by latin1 path (like the two sets below): directories of the target, with their metadata */
  readonly #planned = new Map<string, StepMetadata>();
  /** directories that are removed */
  readonly #leaving = new Set<string>();
  /** directories in which an entry is made or removed */
  readonly #changed = new Set<string>();
  readonly #pace: Pacer;
  /** files of the target's held tree; null if the target has none */
  readonly #held: HeldFiles | null;
  /** the open directory in which entries are staged */
  readonly #staging: { fd: number; path: Buffer };
  /** the workspace's root, opened when an entry is linked to a present one */
  #root: HeldDirectories | null = null;
  #count = 0;
  #bytes = 0;
  readonly #report: (at: { done: number }) => void;

  constructor(input: StageInput) {
    this.#input = input;
    this.#pace = newPacer(input.signal);
    this.#report = throttled(input.onProgress && this.#reporter(input.onProgress));
    this.#finder = new RecordFinder(input.scan);
    this.#held = input.held === null ? null : new HeldFiles(input.held);
    this.#staging = { fd: openDirectory(input.staging), path: Buffer.from(input.staging) };
    this.#owners = new OtherOwners(this.#writer.sys, this.#staging.fd);
  }

  async run(): Promise<StagedRestore> {
    const { plan } = this.#input;
    let stays: Uint8Array | null = null;
    const steps = new PackedList<Step>();
    const removedDirectories: Step[] = [];
    const directories: Step[] = [];
    const puts = new PackedList<Step>();
    const metadata = new PackedList<Step>();
    let i = -1;
    for (const entry of plan) {
      this.#report({ done: ++i });
      await this.#pace();
      const { before, after, path: where, old, action } = entry;
      if (action === "keep" || (stays !== null && isAtOrBelow(where, stays))) continue;
      const wasDirectory = before?.type === "dir";
      const isDirectory = after?.type === "dir";
      if (action === "metadata" && after !== null && !isDirectory && old !== null)
        metadata.push({ op: "meta", path: where, old, metadata: metadataOf(after, before) });
      else if (after !== null && !isDirectory) {
        const put = await this.#stage({ where, node: after, before, old: wasDirectory ? null : old, done: i });
        if (put === null) {
          stays = where;
          continue;
        }
        if (put.op === "write") metadata.push(put);
        else puts.push(put);
      }
      this.#noteDirectories(entry);
      // Copies the paths that stay, because each would keep its block of the plan.
      if (wasDirectory && !isDirectory && old !== null)
        removedDirectories.push({ op: "rmdir", path: Uint8Array.from(where), old });
      if (before !== null && !wasDirectory && (after === null || isDirectory) && old !== null)
        steps.push({ op: "remove", path: where, old, kept: this.#count++ });
      if (isDirectory && !wasDirectory) directories.push({ op: "mkdir", path: Uint8Array.from(where) });
    }
    for (const step of [...removedDirectories.reverse(), ...directories]) steps.push(step);
    for (const list of [puts, metadata]) steps.append(list);
    for (const step of this.#directoryTimes()) steps.push(step);
    const others = this.#stays.length === 0 ? steps : this.#withoutPartsOfDatabases(steps);
    const notPut = new Set([...this.#stays.map(({ path }) => key(path)), ...this.#inPlaces]);
    const notSet = this.#writer.notSet.filter(({ path }) => !notPut.has(key(path)));
    return { steps: others, notSet, damaged: this.#damaged, stays: this.#stays };
  }

  /** Drops the steps of a database of which a file stays: a database and its log are replaced together. */
  #withoutPartsOfDatabases(all: Steps): Steps {
    const isShared = sharesDatabase(this.#stays.map(({ path }) => path));
    const steps = new PackedList<Step>();
    for (const step of all) {
      if ((step.op !== "put" && step.op !== "remove") || !isShared(step.path)) steps.push(step);
      else this.#stays.push({ path: step.path, reason: "not_permitted", detail: STAYS_WITH_DATABASE });
    }
    return steps;
  }

  close(): void {
    fs.closeSync(this.#staging.fd);
    this.#held?.close();
    this.#root?.close();
  }

  #reporter(report: NonNullable<StageInput["onProgress"]>): (at: { done: number }) => void {
    const { plan } = this.#input;
    const total = { total: plan.length, total_bytes: bytesWritten(plan) };
    return ({ done }) => report({ done, bytes: this.#bytes, ...total });
  }

  /**
   * Stages an entry and returns its step. Returns null, and lists the entry, if it cannot be made, the file system
   * cannot hold it, or its content is damaged.
   */
  async #stage(entry: {
    where: Uint8Array;
    node: TreeNode;
    before: TreeNode | null;
    old: Identity | null;
    done: number;
  }): Promise<Step | null> {
    const { where, node, before, old } = entry;
    const number = this.#count++;
    const name = Buffer.from(stagedName(number));
    const staging = this.#staging;
    const place = { name, path: where };
    const staged = Buffer.concat([staging.path, SLASH, name]);
    const member = { ...place, node };
    if (node.inode === 0n || !this.#isLinked(member, staged)) {
      const isMade =
        node.type === "file"
          ? await this.#file(entry, place, staging.fd)
          : this.#writer.special(staging.fd, node, place);
      if (!isMade) return null;
    }
    const made = fs.lstatSync(staged, { bigint: true });
    const inode = made.ino.toString();
    // A link gives nobody access, so its owner loses nothing.
    if (old !== null && before !== null && before.type !== "symlink" && !this.#input.takeOwnership) {
      const is = outsideOwner(staged, made);
      const why = this.#owners.whyTaken({ was: before, is, wanted: node });
      const step = why === null ? null : this.#inPlace({ where, node, before, old }, { number, staged, inode });
      if (step !== null) return step;
      if (why !== null) {
        this.#writer.remove(staging.fd, name);
        this.#stays.push({ path: where, reason: "not_permitted", detail: why });
        return null;
      }
    }
    if (node.inode !== 0n) this.#noteMember(member);
    return { op: "put", path: where, staged: number, inode, old };
  }

  /** Returns a step that writes the staged content into the present file; null if the file must stay. */
  #inPlace(
    { where, node, before, old }: { where: Uint8Array; node: TreeNode; before: TreeNode; old: Identity },
    { number, staged, inode }: { number: number; staged: Buffer; inode: string },
  ): Step | null {
    const { root } = this.#input;
    if (!isForInPlace({ root, path: where, before, node, old, staged })) return null;
    const present = (this.#root ??= new HeldDirectories(root));
    const { fd: directory, name } = present.parentOf(where);
    const now = present.identity(directory, name);
    if (now === null || !sameIdentity(now, old)) return null;
    const arena = newArena(512);
    putName(arena, 0, name);
    const fd = present.sys.open(directory, arena, 0, IN_PLACE, 0);
    if (fd < 0) return null;
    try {
      const digests = stageInPlace(fd, staged);
      if (digests === null) return null;
      this.#inPlaces.push(key(where));
      return {
        op: "write",
        path: where,
        staged: number,
        inode,
        old,
        ...digests,
        metadata: metadataOf(node, before),
      };
    } finally {
      present.sys.close(fd);
    }
  }

  #noteMember(member: Member): void {
    const { node } = member;
    const known = this.#groups.get(node.inode);
    if (known === undefined) this.#groups.set(node.inode, [member]);
    else if (!known.some((other) => canBeOne(other.node, node))) known.push(member);
  }

  /** Links an entry to a member of its group; false if it has none. Notes a link that is impossible. */
  #isLinked({ node, path: where, name }: Member, staged: Buffer): boolean {
    const { fd } = this.#staging;
    const others = this.#groups.get(node.inode) ?? [];
    const first = others.find((other) => canBeOne(other.node, node));
    const to = { name, path: where };
    if (first !== undefined) return this.#writer.holds(where, "links", () => this.#writer.link(fd, first.name, fd, to));
    const anchor = this.#input.anchors.get(node.inode);
    const isAnchored = anchor !== undefined && canBeOne(anchor.node, node);
    if (isAnchored && this.#linkToAnchor(anchor.path, { name, staged })) return true;
    const another = others[0] ?? anchor;
    if (isAnchored)
      this.#writer.cannotLink(
        where,
        `a hard link to ${quotedPath(anchor.path)}, which has the same content, could not be made`,
      );
    else if (another !== undefined) this.#writer.cannotLink(where, isAnother(another.path));
    return false;
  }

  /** Makes a file. Returns false, and lists the file, if the file system cannot hold its size or the content is damaged. */
  async #file(
    { where, node, done }: { where: Uint8Array; node: TreeNode; done: number },
    place: { name: Uint8Array; path: Uint8Array },
    staging: number,
  ): Promise<boolean> {
    const held = this.#held;
    if (held !== null && this.#writer.filledFile(staging, node, place, (fd) => held.fill(where, node, fd))) {
      this.#bytes += node.size;
      return true;
    }
    const holes = this.#input.holes.get(Buffer.from(where).toString("latin1"));
    const whole = { ...place, ...(holes === undefined ? {} : { holes }) };
    const content = this.#input.target.content(node);
    try {
      for (const bytes of this.#writer.fileInSteps(staging, node, whole, content)) {
        this.#bytes += bytes;
        this.#report({ done });
        await this.#pace();
      }
    } catch (error) {
      const known = toCairnError(error);
      if (known.code === "damaged" && !this.#input.throwsDamaged) {
        this.#damaged.push({ path: where, reason: "damaged", detail: known.message });
        this.#writer.remove(staging, place.name);
      } else this.#writer.notHeld(where, "type", error);
      return false;
    }
    return true;
  }

  /** Links to the group member in the workspace. Returns false if that file changed since the save. */
  #linkToAnchor(anchor: Uint8Array, to: { name: Buffer; staged: Buffer }): boolean {
    const { staged } = to;
    const record = this.#finder.find(anchor);
    if (record === null) return false;
    if (!this.#isLinkMade(anchor, to)) return false;
    const { ino, size, mtimeNs } = fs.lstatSync(staged, { bigint: true });
    const { inode, size: saved, mtimeSec, mtimeNs: rest } = identityOf(record);
    if (
      ino.toString() === inode &&
      size === BigInt(saved) &&
      mtimeNs === BigInt(mtimeSec) * 1_000_000_000n + BigInt(rest)
    )
      return true;
    fs.unlinkSync(staged);
    return false;
  }

  #isLinkMade(anchor: Uint8Array, { name: staged }: { name: Buffer }): boolean {
    const from = newArena(512);
    const to = newArena(512);
    try {
      this.#root ??= new HeldDirectories(this.#input.root);
      const { fd, name } = this.#root.parentOf(anchor);
      putName(from, 0, name);
      putName(to, 0, staged);
      return this.#root.sys.link(fd, from, 0, this.#staging.fd, to, 0) >= 0;
    } catch {
      return false;
    }
  }

  /** Notes a directory that is made, removed or gets metadata, and the parent of an entry that is made or removed. */
  #noteDirectories({ path: where, before, after, action }: PlannedEntry): void {
    if (after?.type === "dir") this.#planned.set(key(where), metadataOf(after, before?.type === "dir" ? before : null));
    else if (before?.type === "dir") this.#leaving.add(key(where));
    if (action !== "metadata") this.#changed.add(key(where.subarray(0, Math.max(where.lastIndexOf(47), 0))));
  }

  /** Returns the metadata steps of changed directories of the target, deepest first: times are set last. */
  #directoryTimes(): Step[] {
    for (const parent of this.#changed) {
      if (parent === "" || this.#planned.has(parent) || this.#leaving.has(parent)) continue;
      const node = this.#unchangedDirectory(Buffer.from(parent, "latin1"));
      if (node !== null) this.#planned.set(parent, metadataOf(node, null));
    }
    return [...this.#planned]
      .map(([where, metadata]): Step => ({ op: "dirmeta", path: Buffer.from(where, "latin1"), metadata }))
      .sort((a, b) => Buffer.compare(b.path, a.path));
  }

  /** Returns the recorded metadata of a directory that is equal in both states: only its times move meanwhile. */
  #unchangedDirectory(where: Uint8Array): NodeMetadata | null {
    const node = this.#finder.nodeOf(where);
    return node?.type === "dir" ? { ...node, xattrs: [] } : null;
  }
}

function bytesWritten(plan: Plan): number {
  const isWritten = ({ after, action }: PlannedEntry): boolean =>
    after?.type === "file" && (action === "create" || action === "update");
  return Iterator.from(plan).reduce((sum, each) => sum + (isWritten(each) ? each.after!.size : 0), 0);
}

const SLASH = Buffer.from("/");

function key(where: Uint8Array): string {
  return Buffer.from(where).toString("latin1");
}
