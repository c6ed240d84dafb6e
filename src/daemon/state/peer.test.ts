import assert from "node:assert/strict";
import { test } from "node:test";
import { type Caller, isBeside, mayByBits, rightOn } from "./peer.ts";

const SERVED = { id: "0a".repeat(16), path: "/nowhere", owner_uid: 1000 };
const caller = (uid: number, more: Partial<Caller> = {}): Caller => ({
  pid: 1,
  uid,
  gid: uid,
  isAgent: false,
  token: null,
  only: null,
  ...more,
});

test("a token acts only on the workspaces for which it was made, also a token of root", () => {
  assert.equal(rightOn(caller(0), SERVED), "owner");
  for (const uid of [0, 1000]) {
    const limited = caller(uid, { token: "t", only: new Set(["other"]) });
    assert.throws(() => rightOn(limited, SERVED), { code: "permission" });
    assert.equal(rightOn({ ...limited, only: new Set([SERVED.id]) }, SERVED), "owner");
  }
});

test("an agent's fork has its folder's name and more, and lies beside it", () => {
  for (const fork of ["/a/work-try1", "/a/work.2"]) assert.equal(isBeside("/a/work", fork), true, fork);
  for (const fork of ["/a/work", "/a/works", "/a/work-/../../etc", "/a/work/inside", "/b/work-1", "/a/work-ü"])
    assert.equal(isBeside("/a/work", fork), false, fork);
});

test("recorded permission bits count by owner, group or others, and never by two of them", () => {
  const entry = { uid: 1000, gid: 2000, mode: 0o047 };
  assert.equal(mayByBits(caller(1000), entry, false), false);
  assert.equal(mayByBits(caller(2000), entry, false), true);
  assert.equal(mayByBits(caller(2000), entry, true), false);
  assert.equal(mayByBits(caller(3000), entry, true), true);
});
