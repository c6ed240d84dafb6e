import assert from "node:assert/strict";
import { test } from "node:test";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { EntryBack } from "./entry-back.ts";

function file(content: string, more: Partial<TreeNode> = {}): TreeNode {
  const owner = { uid: 0, gid: 0, user: "", group: "" };
  const facts = { inode: 0n, deviceId: 0n, links: 1, device: 0n, xattrs: [], mtimeSec: 1, mtimeNs: 0 };
  const bytes = Buffer.from(content.padEnd(32));
  return { name: Buffer.from("f"), type: "file", mode: 0o644, size: 32, content: bytes, ...owner, ...facts, ...more };
}

test("a file that was made and edited since stays, and its content is named as edited", () => {
  const back = new EntryBack(file("edited"), true);
  back.takeBack({ index: 0, found: null, left: file("made") });
  assert.deepEqual([back.wanted, back.stopped], [file("edited"), ["content"]]);
});

test("a file that was removed and made again since with another content stays", () => {
  const back = new EntryBack(file("again"), true);
  back.takeBack({ index: 0, found: file("old"), left: null });
  assert.deepEqual([back.wanted, back.stopped], [file("again"), ["content"]]);
});

test("a mode that was set since stays, and the content goes back", () => {
  const back = new EntryBack(file("new", { mode: 0o600 }), true);
  back.takeBack({ index: 0, found: file("old"), left: file("new", { mode: 0o755 }) });
  assert.equal(back.wanted!.mode, 0o600);
  assert.deepEqual([back.wanted!.content, back.stopped], [file("old").content, ["mode"]]);
});

test("an older change of an aspect stays, too, once a newer one was edited", () => {
  const back = new EntryBack(file("edited"), true);
  back.takeBack({ index: 0, found: file("second"), left: file("third") });
  back.takeBack({ index: 1, found: file("first"), left: file("second") });
  assert.deepEqual([back.wanted, back.stopped], [file("edited"), ["content"]]);
});
