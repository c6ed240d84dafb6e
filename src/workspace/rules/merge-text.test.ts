import assert from "node:assert/strict";
import { test } from "node:test";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { MadeContents } from "./made-contents.ts";
import { TextMerge } from "./merge-text.ts";

function mergeOf(base: string, ours: string, theirs: string): string | null {
  const text = (content: string): TreeNode =>
    ({
      name: Buffer.from("f"),
      type: "file",
      size: content.length,
      content: Buffer.from(content),
    }) as unknown as TreeNode;
  const source = { content: ({ content }: TreeNode) => [content!] } as unknown as TreeSource;
  const made = new MadeContents();
  const merge = new TextMerge({ source, fields: [] } as never, source, made);
  const merged = merge.merge(Buffer.from("f"), { base: text(base), ours: text(ours), theirs: text(theirs) });
  return merged && Buffer.concat([...made.with(source).content(merged)]).toString();
}

test("a text of which both sides changed other lines gets the changes of both", () => {
  assert.equal(mergeOf("a\nb\nc\nd\ne\n", "A\nb\nc\nd\ne\n", "a\nb\nc\nd\nE\n"), "A\nb\nc\nd\nE\n");
});

test("a text of which both sides changed the same lines stays as it is", () => {
  assert.equal(mergeOf("a\nb\nc\n", "a\nours\nc\n", "a\ntheirs\nc\n"), null);
});
