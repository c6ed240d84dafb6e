import { losslessByPath, type LosslessByPath } from "../../archive/write/exact-nodes.ts";
import { latin1 } from "../../formats/bytes.ts";
import { nodeNamed, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { withFields } from "../points/tree-diff.ts";
import type { State } from "./git-view.ts";

/** Finds the nodes of paths that come in raw pre-order: it holds the directories above the last one only. */
export class OrderedFinder {
  readonly #source: TreeSource;
  readonly #fields: LosslessByPath;
  readonly #open: { path: string; nodes: TreeNodes }[];

  constructor({ source, fields }: State) {
    this.#source = source;
    this.#fields = losslessByPath(fields);
    this.#open = [{ path: "", nodes: source.list(source.root) }];
  }

  at(path: Uint8Array): TreeNode | null {
    const text = latin1(path);
    while (this.#open.length > 1 && !text.startsWith(this.#open.at(-1)!.path)) this.#open.pop();
    for (;;) {
      const { path: above, nodes } = this.#open.at(-1)!;
      const end = text.indexOf("/", above.length);
      const name = text.slice(above.length, end < 0 ? undefined : end);
      const node = nodeNamed(nodes, Buffer.from(name, "latin1")) ?? null;
      if (end < 0) return withFields(node, this.#fields.get(text));
      if (node?.type !== "dir") return null;
      this.#open.push({ path: `${above}${name}/`, nodes: this.#source.list(node.subtree!) });
    }
  }
}
