import { losslessByPath, type LosslessByPath } from "../../archive/write/exact-nodes.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { readRegular } from "../../fs/regular-file.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { type ExactFields, NodeFinder, withFields } from "../points/tree-diff.ts";
import { indexKey, isWork, packedRefs, symbolicTarget } from "./git-files.ts";

/** Reads git directories in states of a folder. */

const MOST_BYTES = 64 << 20;
/** A state of the folder. */
export interface State {
  source: TreeSource;
  fields: ExactFields["before"];
  /** the folder itself: its files are read there, not from a store */
  root?: Uint8Array;
}

export function textOf(node: TreeNode, source: TreeSource): string {
  if (node.size > MOST_BYTES) throw new TooLarge();
  return bytesOf({ source }, node.name, node).toString("latin1");
}

/** Reads a file of a state. */
export function bytesOf({ root, source }: Pick<State, "root" | "source">, path: Uint8Array, node: TreeNode): Buffer {
  if (root !== undefined) return readRegular(joinPath(root, path), { limit: MOST_BYTES });
  return Buffer.concat([...source.content(node)].map((piece) => Uint8Array.from(piece)));
}

/** Makes the views of all states and git directories; equal files are read once. */
export class GitViews {
  readonly #views = new Map<State, { finder: NodeFinder; fields: LosslessByPath }>();
  readonly #texts = new Map<string, string>();

  of(state: State, directory: string): GitView {
    const known = this.#views.get(state) ?? {
      finder: new NodeFinder(state.source),
      fields: losslessByPath(state.fields),
    };
    this.#views.set(state, known);
    return new GitView({ state, directory, ...known, texts: this.#texts });
  }
}

export class TooLarge extends Error {}

interface ViewInput {
  state: State;
  directory: string;
  finder: NodeFinder;
  fields: LosslessByPath;
  /** files that were read, by content */
  texts: Map<string, string>;
}

/** A git directory in one state. Names are below it, in latin1. */
export class GitView {
  readonly #of: ViewInput;
  #refs: Map<string, string> | null = null;
  #loose: Map<string, TreeNode> | null = null;
  #index: string | null = null;
  #isLocked: boolean | null = null;

  constructor(of: ViewInput) {
    this.#of = of;
  }

  get isThere(): boolean {
    return this.node("HEAD")?.type === "file" && this.isDirectory("objects") && this.isDirectory("refs");
  }

  get isLocked(): boolean {
    const isLock = (name: string): boolean => name.endsWith(".lock") && name !== "gc.pid.lock";
    return (this.#isLocked ??=
      this.names("").some(isLock) || Iterator.from(this.files("refs")).some(([name]) => isLock(name)));
  }

  node(name: string): TreeNode | null {
    const { directory, finder, fields } = this.#of;
    const path = `${directory}/${name}`;
    return withFields(finder.at(Buffer.from(path, "latin1")), fields.get(path));
  }

  isDirectory(name: string): boolean {
    return this.node(name)?.type === "dir";
  }

  /** Lists the names in a directory; none if there is no directory. */
  names(name: string): string[] {
    return [...this.#list(name)].map((node) => latin1(node.name));
  }

  #list(name: string): Iterable<TreeNode> {
    const { directory, finder, state } = this.#of;
    const node = finder.at(Buffer.from(name === "" ? directory : `${directory}/${name}`, "latin1"));
    return node?.type === "dir" ? state.source.list(node.subtree!) : [];
  }

  /** Yields the entries below a directory that are no directories, by name. */
  *files(name: string): Generator<[string, TreeNode]> {
    for (const node of this.#list(name)) {
      const own = `${name}/${latin1(node.name)}`;
      if (node.type === "dir") yield* this.files(own);
      else yield [own, node];
    }
  }

  /** Yields the entries below a directory that a state of `others` lacks in it. */
  *lackingIn(name: string, others: readonly GitView[]): Generator<[string, TreeNode]> {
    const nodes = others.map((other) => other.node(name));
    const own = this.node(name);
    if (own?.type !== "dir") return;
    if (nodes.some((node) => node?.type === "dir" && Buffer.compare(node.subtree!, own.subtree!) === 0)) return;
    for (const node of this.#list(name)) {
      const path = `${name}/${latin1(node.name)}`;
      if (node.type === "dir") yield* this.lackingIn(path, others);
      else if (others.every((other) => other.node(path) === null)) yield [path, this.node(path)!];
    }
  }

  /** Returns a file as latin1 text; an empty text if there is no such file. */
  text(name: string): string {
    const node = this.node(name);
    if (node?.type !== "file") return "";
    if (node.size > MOST_BYTES) throw new TooLarge();
    const { state, directory, texts } = this.#of;
    if (node.size === 0) return "";
    const key = latin1(node.content ?? new Uint8Array());
    const known = key === "" ? undefined : texts.get(key);
    if (known !== undefined) return known;
    const path = Buffer.from(`${directory}/${name}`, "latin1");
    const text = bytesOf(state, path, node).toString("latin1");
    texts.set(key, text);
    return text;
  }

  get head(): string {
    return this.text("HEAD").trim();
  }

  /** The ref that HEAD names, through other symbolic refs; null if HEAD is detached. */
  get branch(): string | null {
    let name = symbolicTarget(this.head);
    for (let i = 0; i < 5 && name !== null; i++) {
      const next = symbolicTarget(this.ref(name));
      if (next === null) return name;
      name = next;
    }
    return name;
  }

  /** Loose refs by name. */
  loose(): ReadonlyMap<string, TreeNode> {
    return (this.#loose ??= new Map([...this.files("refs")].filter(([name]) => !name.endsWith(".lock"))));
  }

  /** The values of all refs. */
  refs(): ReadonlyMap<string, string> {
    if (this.#refs !== null) return this.#refs;
    const refs = packedRefs(this.text("packed-refs"));
    for (const name of this.loose().keys()) refs.set(name, this.text(name).trim());
    return (this.#refs = refs);
  }

  /** The value of a ref; empty if there is no such ref. */
  ref(name: string): string {
    return this.refs().get(name) ?? "";
  }

  /** The value of a ref, and for the stash its list. */
  valueOf(name: string): string {
    const value = this.ref(name);
    return name === STASH ? `${value}\n${this.text(`logs/${STASH}`)}` : value;
  }

  index(): string {
    return (this.#index ??= this.node("index") === null ? "" : indexKey(Buffer.from(this.text("index"), "latin1")));
  }

  /** The files of work in progress. */
  *work(): Generator<[string, TreeNode]> {
    for (const name of this.names("").filter(isWork)) {
      if (this.isDirectory(name)) yield* this.files(name);
      else yield [name, this.node(name)!];
    }
  }

  workKey(): string {
    const key = ([name, node]: [string, TreeNode]): string =>
      `${name} ${node.type} ${latin1(node.content ?? node.linktarget ?? new Uint8Array())}`;
    return Iterator.from(this.work()).map(key).toArray().toSorted().join("\n");
  }

  /** The branches that a rebase or bisect will write when it ends. */
  busyBranches(name = ""): string[] {
    const files = ["rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"];
    const names = files.map((file) => this.text(name + file).trim());
    return names.flatMap((each) => (each === "" ? [] : [each.startsWith("refs/") ? each : `refs/heads/${each}`]));
  }
}

export const STASH = "refs/stash";
