import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { parseTarget } from "./target.ts";

const NAME = "ab".repeat(32);

test("parseTarget finds the repository, list or file that an address names", () => {
  assert.deepEqual(parseTarget("/"), { repository: [], kind: null, name: null, query: "" });
  assert.deepEqual(parseTarget("/?create=true"), { repository: [], kind: null, name: null, query: "create=true" });
  assert.deepEqual(parseTarget("/a/b%20c?x"), { repository: ["a", "b c"], kind: null, name: null, query: "x" });
  assert.deepEqual(parseTarget("/a/b/config"), { repository: ["a", "b"], kind: "config", name: "config", query: "" });
  assert.deepEqual(parseTarget("/data/"), { repository: [], kind: "data", name: null, query: "" });
  assert.deepEqual(parseTarget(`/%C3%BC/index/${NAME}`), { repository: ["ü"], kind: "index", name: NAME, query: "" });
});

test("parseTarget refuses an address that could lead out of the folder", () => {
  for (const address of [
    "",
    "*",
    "x",
    "http://host/",
    "//",
    "//data/",
    "/a//data/",
    "/../data/",
    "/a/../../etc/",
    "/%2e%2e/data/",
    "/%2E./x/",
    "/./data/",
    "/a%2Fb/",
    "/a%2fdata/",
    "/a%5Cb/",
    "/a\\b/",
    "/a%00/",
    "/a%0a/",
    "/a%7f/",
    "/a%c2%85/",
    "/a%ff/",
    "/a%/",
    "/%/",
    "/ a/",
    "/%20a/",
    "/a%20/",
    "/%20/",
    "/ü/",
    "/.htpasswd",
    "/.cairn-uploads/",
    "/a/.cairn-uploads/x",
    "/%2ehidden/",
    "/data/data/",
    "/data/a/",
    "/config/",
    "/a/config/data/",
    "/locks/index/",
    `/${"a".repeat(201)}/`,
    `/${"a/".repeat(9)}`,
    "/?create=true?x",
  ])
    assert.throws(
      () => parseTarget(address),
      (error) => error instanceof CairnError && error.code === "usage",
      address,
    );
});

test("parseTarget does not find a file whose name is not a digest", () => {
  for (const name of ["x", NAME.toUpperCase(), `${NAME}0`, `${NAME}%00`, "..", "%2e%2e", ".", "tmp-1"])
    assert.throws(
      () => parseTarget(`/a/data/${name}`),
      (error) => error instanceof CairnError && error.code === "not_found",
      name,
    );
});
