import assert from "node:assert/strict";
import { test } from "node:test";
import { href, parse, partsOf, type Route, toInput, toRef, toText } from "./address.ts";

const RAW = Buffer.from("dir\xff/sub/f\xfe", "latin1").toString("base64");

test("parse returns the view from which href made an address", () => {
  const views: Route[] = [
    { view: "workspaces" },
    { view: "timeline", workspace: "/home/ä b/?#&w=1", q: 'tag:"a b" x' },
    { view: "timeline", workspace: "/w", backups: true },
    { view: "timeline", workspace: "/w", undo: true },
    { view: "point", workspace: "/w", point: "1a", to: "now", file: { path: "a/b c" } },
    { view: "files", workspace: "/w", point: "latest", at: toRef(`b64:${RAW}`), sort: "-size" },
    { view: "file-history", workspace: "/w", at: { path: "x" }, a: "1", b: "2" },
    { view: "restore", workspace: "/w", point: "1a", paths: [{ path: "a" }, toRef(`b64:${RAW}`)] },
    { view: "restore", workspace: "/w", point: "1a", paths: [], turn: "9f86d081" },
    { view: "restore", workspace: "/w", point: "1a", paths: [{ path: "a" }], back: true },
    { view: "activity", workspace: "/w" },
    { view: "activity", workspace: "/w", part: "receipts" },
    { view: "search", workspace: "/w", q: "*.ts" },
  ];
  for (const each of views)
    assert.deepEqual(JSON.parse(JSON.stringify(parse(href(each)))), JSON.parse(JSON.stringify(each)));
});

test("parse returns all workspaces for an unknown address, and the timeline for an incomplete one", () => {
  for (const text of ["", "#", "#/", "#/nothing", "#code=x"]) assert.deepEqual(parse(text), { view: "workspaces" });
  assert.equal(parse("#/point?w=%2Fw").view, "timeline");
});

test("a path keeps the bytes of a name that is not UTF-8", () => {
  const at = toRef(`b64:${RAW}`);
  assert.equal(at.path, "dir\\xff/sub/f\\xfe");
  assert.equal(toText(at), `b64:${RAW}`);
  assert.deepEqual(Buffer.from(toInput(at) as Uint8Array), Buffer.from(RAW, "base64"));
  assert.deepEqual(
    partsOf(at).map(({ name, at: each }) => [name, each.path, each.path_b64]),
    [
      ["dir\\xff", "dir\\xff", Buffer.from("dir\xff", "latin1").toString("base64")],
      ["sub", "dir\\xff/sub", Buffer.from("dir\xff/sub", "latin1").toString("base64")],
      ["f\\xfe", "dir\\xff/sub/f\\xfe", RAW],
    ],
  );
  assert.deepEqual(
    partsOf({ path: "a/ö" }).map(({ at: each }) => each),
    [{ path: "a" }, { path: "a/ö" }],
  );
  assert.deepEqual(partsOf({ path: "" }), []);
});
