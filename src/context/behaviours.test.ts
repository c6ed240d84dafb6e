import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, describe, test } from "node:test";
import { Bundle } from "../bundle/bundle.ts";
import { convertBundle } from "../bundle/convert.ts";
import { listOf, type Made } from "../bundle/testing-bundle.ts";
import { embeddingFacts } from "./embedding.ts";
import { backupStore, exportBundle } from "./export-bundle.ts";
import { readFiles } from "./files.ts";
import type { ContextStore } from "./store.ts";
import {
  assertRefused,
  backupParts,
  type ForeignParts,
  importFile,
  mendHash,
  restoreFile,
  Scratch,
  stateOf,
} from "./testing-store.ts";

/** Behaviours that bundles have since their second format, of OpenViking's description of it, and what each refuses. */

const scratch = new Scratch();
after(() => scratch[Symbol.dispose]());

const read = (store: ContextStore, at: string): string => readFiles(store, `viking://${at}`).toString("utf8");
const isThere = (store: ContextStore, at: string): boolean => fs.existsSync(path.join(store.folder, at));

describe("import of a bundle", () => {
  test("import keeps the name of the bundle's root below the parent", async () => {
    await using store = await scratch.store();
    const { uri } = await importFile(store, await scratch.bundle({}), { parent: "viking://resources/imported/" });
    assert.equal(uri, "viking://resources/imported/docs");
    assert.equal(read(store, "resources/imported/docs/a.md"), "alpha");
  });

  test("import makes missing parents, but none if the bundle is refused", async () => {
    await using store = await scratch.store();
    await importFile(store, await scratch.bundle({}), { parent: "viking://resources/a/b/c" });
    assert.ok(isThere(store, "resources/a/b/c/docs"));
    const wrong = await scratch.bundle({ uri: "viking://user/alice/memories" });
    await assertRefused(store, () => importFile(store, wrong, { parent: "viking://resources/d/e" }), { code: "usage" });
    assert.ok(!isThere(store, "resources/d"));
  });

  test("import fails with `conflict` if a parent is a file", async () => {
    await using store = await scratch.store({ "resources/file": "x" });
    const file = await scratch.bundle({});
    await assertRefused(store, () => importFile(store, file, { parent: "viking://resources/file" }), {
      code: "conflict",
    });
  });

  const others: [string, ForeignParts, string][] = [
    ["refuses resources below memories", { uri: "viking://resources/docs" }, "viking://user/alice/memories"],
    [
      "refuses shared resources below a user's resources",
      { uri: "viking://resources/docs" },
      "viking://user/alice/resources",
    ],
    ["refuses memories below resources", { uri: "viking://user/alice/memories" }, "viking://resources/x"],
    ["refuses a session below resources", { uri: "viking://session/s1" }, "viking://resources"],
    ["refuses a session below another session", { uri: "viking://session/s1" }, "viking://session/s0"],
    [
      "refuses a user's session below memories",
      { uri: "viking://user/alice/sessions/s1" },
      "viking://user/alice/memories",
    ],
    [
      "refuses a user's memories at another depth",
      { uri: "viking://user/alice/memories/tea" },
      "viking://user/alice/memories/deep",
    ],
    [
      "refuses an agent's skills below memories",
      { uri: "viking://agent/default/skills/x" },
      "viking://agent/default/memories",
    ],
    ["refuses a whole scope below a directory", { uri: "viking://resources" }, "viking://resources/x"],
    ["refuses a subtree at the root", { uri: "viking://resources/docs" }, "viking://"],
    ["refuses a backup", backupParts({ "resources/a": "a" }), "viking://"],
    ["refuses a parent in an unknown scope", {}, "viking://temp/x"],
    ["refuses a parent with the part ..", {}, "viking://resources/../user"],
    ["refuses a parent that is no URI", {}, "resources"],
  ];
  for (const [name, parts, parent] of others)
    test(`import ${name}`, async () => {
      await using store = await scratch.store({ "resources/a": "a" });
      const file = await scratch.bundle(parts);
      await assertRefused(store, () => importFile(store, file, { parent }), { code: "usage" });
    });

  test("import puts memories of one user into the folder of another user", async () => {
    await using store = await scratch.store();
    const file = await scratch.bundle({ uri: "viking://user/alice/memories" });
    const { uri } = await importFile(store, file, { parent: "viking://user/bob" });
    assert.equal(uri, "viking://user/bob/memories");
    assert.equal([...store.index.rows("")][0]!.contextType, "memory");
  });

  test("import accepts a whole scope at the root", async () => {
    await using store = await scratch.store();
    const { uri } = await importFile(store, await scratch.bundle({ uri: "viking://resources" }), {
      parent: "viking://",
    });
    assert.equal(uri, "viking://resources");
    assert.equal(read(store, "resources/a.md"), "alpha");
  });

  test("import writes a session's files and indexes none of them", async () => {
    await using store = await scratch.store();
    const records = [{ record_id: "r1", path: "", kind: "directory", level: 0, text: "of a session" }];
    const file = await scratch.bundle({
      uri: "viking://session/s1",
      content: { "messages.jsonl": "{}", ".meta.json": "{}", ".done": "" },
      records,
    });
    await importFile(store, file, { parent: "viking://session" });
    assert.ok(isThere(store, "session/s1/.meta.json") && isThere(store, "session/s1/.done"));
    assert.deepEqual([...store.index.rows("")], []);
  });

  test("import writes a directory named tasks and hidden files", async () => {
    await using store = await scratch.store();
    await importFile(store, await scratch.bundle({ content: { tasks: null, "tasks/x": "x", ".env": "y" } }), {
      parent: "viking://resources",
    });
    assert.deepEqual([read(store, "resources/docs/tasks/x"), read(store, "resources/docs/.env")], ["x", "y"]);
  });

  test("import keeps the names and tags of records, but not their times and counts", async () => {
    await using store = await scratch.store();
    const scalars = {
      type: "note",
      name: "Alpha",
      description: "d",
      tags: "t1,t2",
      abstract: "of alpha",
      context_type: "memory",
      created_at: "1999-01-01",
      active_count: 7,
      uri: "viking://user/x",
    };
    const records = [{ record_id: "r1", path: "a.md", kind: "file", level: 2, scalars }];
    await importFile(store, await scratch.bundle({ records }), { parent: "viking://resources" });
    const [row] = [...store.index.rows("")];
    assert.deepEqual(
      [row!.type, row!.name, row!.description, row!.tags, row!.abstract],
      ["note", "Alpha", "d", "t1,t2", "of alpha"],
    );
    assert.deepEqual([row!.contextType, row!.activeCount, row!.path], ["resource", 0, "resources/docs/a.md"]);
    assert.ok(row!.createdAt > "2020");
  });

  test("import ignores unknown members of manifests and records", async () => {
    await using store = await scratch.store();
    const records = [{ record_id: "r1", path: "a.md", kind: "file", level: 2, later: 1, scalars: { md5: "x" } }];
    const to = await scratch.bundle({ records }, ({ manifest }) => {
      Object.assign(manifest, { later: { a: 1 } });
      Object.assign(manifest["root"] as object, { later: "alice" });
    });
    await importFile(store, to, { parent: "viking://resources" });
    assert.equal([...store.index.rows("")].length, 1);
  });

  test("import indexes files without a record, and abstract files", async () => {
    await using store = await scratch.store();
    await importFile(
      store,
      await scratch.bundle({ content: { "a.md": "# Alpha", ".abstract.md": "About alpha", ".overview.md": "More" } }),
      { parent: "viking://resources" },
    );
    await store.fill();
    assert.deepEqual(
      [...store.index.rows("")].map(({ path: at, level, abstract }) => [at, level, abstract]),
      [
        ["resources/docs", 0, "About alpha"],
        ["resources/docs", 1, "More"],
        ["resources/docs/a.md", 2, "Alpha"],
      ],
    );
  });
});

describe("import over existing content", () => {
  test("import over existing content is refused by default, and the error names the existing directory", async () => {
    await using store = await scratch.store({ "resources/docs/mine.md": "mine" });
    const file = await scratch.bundle({});
    await assertRefused(store, () => importFile(store, file, { parent: "viking://resources" }), {
      code: "already_exists",
      details: { resource: "viking://resources/docs" },
    });
  });

  test("import with `overwrite` replaces the whole root", async () => {
    await using store = await scratch.store({ "resources/docs/mine.md": "mine", "resources/other.md": "other" });
    await importFile(store, await scratch.bundle({}), { parent: "viking://resources", onConflict: "overwrite" });
    assert.ok(!isThere(store, "resources/docs/mine.md"));
    assert.deepEqual([read(store, "resources/docs/a.md"), read(store, "resources/other.md")], ["alpha", "other"]);
    assert.deepEqual([...store.index.rows("")].map(({ path: at }) => at).toSorted(), [
      "resources/docs/a.md",
      "resources/other.md",
    ]);
  });

  test("import with `skip` changes nothing if the root exists", async () => {
    await using store = await scratch.store({ "resources/docs/mine.md": "mine" });
    const before = stateOf(store);
    const { skipped, uri } = await importFile(store, await scratch.bundle({}), {
      parent: "viking://resources",
      onConflict: "skip",
    });
    assert.deepEqual([skipped, uri], [true, "viking://resources/docs"]);
    assert.deepEqual(stateOf(store), before);
  });

  test("import checks the whole bundle before it handles a conflict, even with `skip`", async () => {
    await using store = await scratch.store({ "resources/docs/mine.md": "mine" });
    const file = await scratch.bundle({}, ({ members }) => members.set("docs/files/a.md", Buffer.from("Alpha")));
    for (const onConflict of ["skip", "overwrite", "fail"] as const)
      await assertRefused(store, () => importFile(store, file, { parent: "viking://resources", onConflict }), {
        code: "damaged",
      });
  });

  test("import into an existing empty directory is no conflict", async () => {
    await using store = await scratch.store({ "resources/other.md": "x" });
    fs.mkdirSync(path.join(store.folder, "resources/docs"));
    await importFile(store, await scratch.bundle({}), { parent: "viking://resources" });
    assert.equal(read(store, "resources/docs/a.md"), "alpha");
  });
});

const entriesOf = ({ manifest }: Made): Record<string, unknown>[] => manifest["entries"] as Record<string, unknown>[];

describe("import of damaged bundles", () => {
  const cases: [string, (made: Made) => void, Record<string, unknown>][] = [
    ["no manifest", (made) => (made.manifestPath = "docs/files/manifest.json"), { field: "manifest" }],
    ["an unknown kind", ({ manifest }) => (manifest["kind"] = "other"), { field: "kind" }],
    ["no root", ({ manifest }) => delete manifest["root"], { field: "root" }],
    [
      "a root of another name",
      ({ manifest }) => ((manifest["root"] as { name: string }).name = "other"),
      { field: "root.name" },
    ],
    [
      "a root whose URI has another name",
      ({ manifest }) => ((manifest["root"] as { uri: string }).uri = "viking://resources/other"),
      { field: "root.name" },
    ],
    ["no entries", ({ manifest }) => delete manifest["entries"], { field: "entries" }],
    [
      "a file that is not listed",
      ({ members }) => members.set("docs/files/more.md", Buffer.from("x")),
      { unexpected_files: ["more.md"] },
    ],
    ["a file that is missing", ({ members }) => members.delete("docs/files/a.md"), { missing_files: ["a.md"] }],
    [
      "a directory that is not listed",
      ({ members }) => members.set("docs/files/d", null),
      { unexpected_directories: ["d"] },
    ],
    [
      "a directory that is missing",
      (made) => entriesOf(made).push({ kind: "directory", path: "d" }),
      { missing_directories: ["d"] },
    ],
    [
      "a size that differs",
      (made) => {
        entriesOf(made)[1]!["size"] = 4;
        mendHash(made.manifest);
      },
      { path: "a.md", field: "size", expected: 4, actual: 5 },
    ],
    [
      "a hash that differs",
      (made) => {
        entriesOf(made)[1]!["sha256"] = "0".repeat(64);
        mendHash(made.manifest);
      },
      { path: "a.md", field: "sha256" },
    ],
    [
      "a content_sha256 that differs",
      ({ manifest }) => (manifest["content_sha256"] = "0".repeat(64)),
      { field: "content_sha256" },
    ],
    ["an entry twice", (made) => entriesOf(made).push({ ...entriesOf(made)[1]! }), { path: "a.md" }],
    ["a member outside the root", ({ members }) => members.set("other/x", Buffer.from("x")), { path: "other/x" }],
    ["a member outside the files", ({ members }) => members.set("docs/x", Buffer.from("x")), { path: "docs/x" }],
    [
      "a control file",
      (made) => {
        made.members.set("docs/files/.relations.json", Buffer.from(""));
        entriesOf(made).push({ kind: "file", path: ".relations.json", size: 0, sha256: EMPTY });
        mendHash(made.manifest);
      },
      { path: ".relations.json" },
    ],
    [
      "no records",
      ({ manifest }) => delete (manifest["index"] as { records?: object }).records,
      { field: "index.records" },
    ],
    [
      "truncated records",
      ({ manifest }) => ((manifest["index"] as { records: { count: number } }).records.count = 1),
      { expected: 1, actual: 0 },
    ],
  ];
  for (const [name, spoil, details] of cases)
    test(`import refuses a bundle with ${name}, and writes nothing`, async () => {
      await using store = await scratch.store({ "resources/docs/mine.md": "mine" });
      const file = await scratch.bundle({}, spoil);
      await assertRefused(
        store,
        () => importFile(store, file, { parent: "viking://resources", onConflict: "overwrite" }),
        {
          code: "damaged",
          details,
        },
      );
    });

  test("import refuses a bundle with an old format version", async () => {
    await using store = await scratch.store();
    const file = await scratch.bundle({}, ({ manifest }) => (manifest["format_version"] = 1));
    await assertRefused(store, () => importFile(store, file, { parent: "viking://resources" }), {
      code: "unsupported",
    });
  });

  test("import refuses a bundle with a newer format version", async () => {
    await using store = await scratch.store();
    const file = await scratch.bundle({}, ({ manifest }) => (manifest["format_version"] = 9));
    await assertRefused(store, () => importFile(store, file, { parent: "viking://resources" }), {
      code: "newer_version",
      details: { actual: 9 },
    });
  });
});

const EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

describe("a backup of a store", () => {
  const files = {
    "resources/docs/a.md": "alpha",
    "user/alice/memories/tea.md": "green",
    "session/s1/m.jsonl": "{}",
    "agent/x/skills/y": "z",
  };

  test("a backup has every scope with content, and can be restored into an empty store", async () => {
    await using store = await scratch.store(files);
    const to = scratch.place("backup.ovpack");
    await backupStore(store, { to });
    await using bundle = await Bundle.open(to);
    assert.deepEqual(bundle.manifest.scopes, ["resources", "user", "agent", "session"]);
    assert.deepEqual(bundle.manifest.root, {
      name: "openviking-backup",
      package_type: "backup",
      scope: "root",
      uri: "viking://",
    });
    await using other = await scratch.store();
    const { uri } = await restoreFile(other, to);
    await other.fill();
    assert.equal(uri, "viking://");
    for (const [at, text] of Object.entries(files)) assert.equal(read(other, at), text);
    assert.equal([...other.index.rows("")].length, [...store.index.rows("")].length);
  });

  test("a backup has the scopes of OpenViking 0.4 even if they are empty", async () => {
    await using store = await scratch.store();
    const to = scratch.place("empty.ovpack");
    await backupStore(store, { to });
    await using bundle = await Bundle.open(to);
    assert.deepEqual(
      [bundle.manifest.scopes, bundle.manifest.directories.map((each) => each.path)],
      [
        ["resources", "user"],
        ["", "resources", "user"],
      ],
    );
    await using other = await scratch.store();
    await restoreFile(other, to);
  });

  test("restore with `overwrite` keeps entries that only the store has", async () => {
    await using store = await scratch.store({
      "resources/docs/a.md": "old",
      "resources/mine.md": "mine",
      "session/s9/m": "m",
    });
    const file = await scratch.bundle(backupParts({ "resources/docs/a.md": "new" }));
    await assertRefused(store, () => restoreFile(store, file), {
      code: "already_exists",
      details: { resource: "viking://resources" },
    });
    await restoreFile(store, file, { onConflict: "overwrite" });
    assert.deepEqual(
      [read(store, "resources/docs/a.md"), read(store, "resources/mine.md"), read(store, "session/s9/m")],
      ["new", "mine", "m"],
    );
  });

  test("restore with `exact` removes entries that only the store has, in the scopes of the backup", async () => {
    await using store = await scratch.store({ "resources/mine.md": "mine", "session/s9/m": "m" });
    const file = await scratch.bundle(backupParts({ "resources/docs/a.md": "new" }));
    await restoreFile(store, file, { onConflict: "overwrite", exact: true });
    assert.ok(!isThere(store, "resources/mine.md") && isThere(store, "session/s9/m"));
    assert.deepEqual(
      [...store.index.rows("")].map(({ path: at }) => at),
      ["resources/docs/a.md"],
    );
  });

  test("restore with `skip` changes nothing if the store has content in the backup's scopes", async () => {
    await using store = await scratch.store({ "resources/mine.md": "mine" });
    const before = stateOf(store);
    const { skipped } = await restoreFile(store, await scratch.bundle(backupParts({ "user/a/memories/x": "x" }, {})), {
      onConflict: "skip",
    });
    assert.equal(skipped, false);
    const again = await restoreFile(store, await scratch.bundle(backupParts({ "user/a/memories/x": "y" })), {
      onConflict: "skip",
    });
    assert.equal(again.skipped, true);
    assert.equal(read(store, "user/a/memories/x"), "x");
    assert.equal(stateOf(store)["resources/mine.md"], before["resources/mine.md"]);
  });

  test("restore with `overwrite` replaces a file by a directory and a directory by a file", async () => {
    await using store = await scratch.store({ "resources/a": "file", "resources/b/c": "deep" });
    await restoreFile(store, await scratch.bundle(backupParts({ "resources/a/x": "x", "resources/b": "file" })), {
      onConflict: "overwrite",
    });
    await store.fill();
    assert.deepEqual([read(store, "resources/a/x"), read(store, "resources/b")], ["x", "file"]);
    assert.deepEqual(
      [...store.index.rows("")].map(({ path: at }) => at),
      ["resources/a/x", "resources/b"],
    );
  });

  const broken: [string, ForeignParts, string][] = [
    ["an ordinary bundle", {}, "usage"],
    [
      "a listed scope without content",
      backupParts({ "resources/a": "a" }, { scopes: ["resources", "user"] }),
      "damaged",
    ],
    [
      "content in a scope that is not listed",
      backupParts({ "resources/a": "a", "user/x": "x" }, { scopes: ["resources"] }),
      "damaged",
    ],
    [
      "a scope that is listed twice",
      backupParts({ "resources/a": "a" }, { scopes: ["resources", "resources"] }),
      "damaged",
    ],
    ["content outside of all scopes", backupParts({ "other/a": "a" }), "damaged"],
    ["a scope that is a file", backupParts({ resources: "a" }), "damaged"],
  ];
  for (const [name, parts, code] of broken)
    test(`restore refuses a backup: ${name}`, async () => {
      await using store = await scratch.store({ "resources/mine.md": "mine" });
      const file = await scratch.bundle(parts);
      await assertRefused(store, () => restoreFile(store, file, { onConflict: "overwrite" }), { code });
    });
});

describe("content of the scopes agent and session", () => {
  const OLD = { "session/s1/messages.jsonl": "{}", "agent/a/skills/x.md": "x", "user/bob/memories/m.md": "m" };
  const layoutOf = async (to: string): Promise<string> => {
    await using bundle = await Bundle.open(to);
    return bundle.manifest.layout;
  };

  test("content of agents and sessions is packed in layout B by default, and refused in layout C", async () => {
    await using store = await scratch.store(OLD);
    const to = (): string => scratch.place("old.ovpack");
    const [all, part, others, not] = [to(), to(), to(), to()];
    await backupStore(store, { to: all });
    await exportBundle(store, { uri: "viking://agent/a", to: part });
    await exportBundle(store, { uri: "viking://user/bob", to: others });
    assert.deepEqual([await layoutOf(all), await layoutOf(part), await layoutOf(others)], ["B", "B", "C"]);
    const refusedBy = { code: "unsupported", details: { roots: ["agent", "session"] } };
    await assertRefused(store, () => backupStore(store, { to: not, layout: "C" }), refusedBy);
    assert.ok(!fs.existsSync(not));
  });

  test("convert to layout C moves sessions to a user and leaves out the given paths", async () => {
    await using store = await scratch.store(OLD);
    const [all, to] = [scratch.place("all.ovpack"), scratch.place("new.ovpack")];
    await backupStore(store, { to: all });
    await using bundle = await Bundle.open(all);
    await assert.rejects(convertBundle(bundle, { to, layout: "C" }), { code: "unsupported" });
    await assert.rejects(convertBundle(bundle, { to, layout: "C", leaveOut: ["agents"] }), { code: "not_found" });
    await convertBundle(bundle, { to, layout: "C", sessionsTo: "alice", leaveOut: ["agent"] });
    await using other = await scratch.store();
    await restoreFile(other, to);
    await using made = await Bundle.open(to);
    assert.deepEqual(made.manifest.scopes, ["resources", "user"]);
    assert.equal(read(other, "user/alice/sessions/s1/messages.jsonl"), "{}");
    assert.deepEqual([isThere(other, "agent"), isThere(other, "session")], [false, false]);
  });

  test("empty scopes of agents and sessions do not prevent layout C", async () => {
    await using store = await scratch.store({ "resources/a.md": "a" });
    fs.mkdirSync(path.join(store.folder, "agent"));
    const [c, b, again] = [scratch.place("c"), scratch.place("b"), scratch.place("again")];
    await backupStore(store, { to: c });
    await backupStore(store, { to: b, layout: "B" });
    await using bundle = await Bundle.open(b);
    await convertBundle(bundle, { to: again, layout: "C" });
    assert.deepEqual([await layoutOf(c), await layoutOf(again)], ["C", "C"]);
  });

  test("convert turns a bundle of one session into a session of a user", async () => {
    await using store = await scratch.store(OLD);
    const [one, to] = [scratch.place("one.ovpack"), scratch.place("new.ovpack")];
    await exportBundle(store, { uri: "viking://session/s1", to: one });
    await using bundle = await Bundle.open(one);
    await convertBundle(bundle, { to, layout: "C", sessionsTo: "alice" });
    await importFile(store, to, { parent: "viking://user/alice/sessions" });
    assert.equal(read(store, "user/alice/sessions/s1/messages.jsonl"), "{}");
  });
});

describe("single paths and dry runs of an import", () => {
  const content = { d: null, "d/one.md": "one", "d/two.md": "two", "three.md": "three" };

  test("import of a single path writes only that path and its parent directories", async () => {
    await using store = await scratch.store({ "resources/docs/d/mine.md": "mine" });
    const done = await importFile(store, await scratch.bundle({ content }), {
      parent: "viking://resources",
      paths: ["d/one.md"],
    });
    assert.deepEqual(
      [done.files, read(store, "resources/docs/d/one.md"), read(store, "resources/docs/d/mine.md")],
      [1, "one", "mine"],
    );
    assert.ok(!isThere(store, "resources/docs/three.md"));
  });

  test("import of a single path replaces only that path, and only with `overwrite`", async () => {
    await using store = await scratch.store({ "resources/docs/d/one.md": "mine", "resources/docs/d/two.md": "mine" });
    const file = await scratch.bundle({ content });
    const options = { parent: "viking://resources", paths: ["d/one.md"] };
    await assertRefused(store, () => importFile(store, file, options), {
      code: "already_exists",
      details: { resource: "viking://resources/docs/d/one.md" },
    });
    await importFile(store, file, { ...options, onConflict: "overwrite" });
    assert.deepEqual([read(store, "resources/docs/d/one.md"), read(store, "resources/docs/d/two.md")], ["one", "mine"]);
  });

  test("import names a chosen path that the bundle lacks", async () => {
    await using store = await scratch.store();
    const file = await scratch.bundle({ content });
    await assertRefused(store, () => importFile(store, file, { parent: "viking://resources", paths: ["none"] }), {
      code: "not_found",
      details: { path: "none" },
    });
  });

  test("a dry run of an import checks the bundle and changes nothing", async () => {
    await using store = await scratch.store({ "resources/docs/mine.md": "mine" });
    const before = stateOf(store);
    const options = { parent: "viking://resources", dryRun: true, onConflict: "overwrite" } as const;
    const { files, replaced } = await importFile(store, await scratch.bundle({ content }), options);
    assert.deepEqual([files, replaced, stateOf(store)], [3, ["viking://resources/docs"], before]);
    const damaged = await scratch.bundle({}, ({ members }) => members.set("docs/files/a.md", Buffer.from("Alpha")));
    await assertRefused(store, () => importFile(store, damaged, options), { code: "damaged" });
  });
});

describe("vectors", () => {
  const embedding = { provider: "cairn", model: "all-minilm-l6-v2-static", input: "text", dimensions: 256 };
  const vector = Array.from({ length: 256 }, (_, i) => (i === 7 ? 1 : 0));
  const records = [
    { record_id: "r1", path: "a.md", kind: "file", level: 2, vector: { dense: { offset: 0, dimensions: 256 } } },
  ];
  const fitting = { records, vectors: [vector], embedding };

  test("import uses a bundle's vectors if they were made with the store's settings", async () => {
    await using store = await scratch.store();
    const done = await importFile(store, await scratch.bundle(fitting), {
      parent: "viking://resources",
      vectorMode: "require",
    });
    assert.equal(done.vectors, "bundle");
    await store.fill();
    const [row] = [...store.index.rows("")];
    assert.deepEqual([...store.index.vector(row!.id)!], vector);
  });

  test("import uses a bundle's vectors that an endpoint with default settings made", async () => {
    const config = { provider: "openai", model: "m", dimensions: 256, base_url: "http://127.0.0.1:1" } as const;
    await using store = await scratch.store({}, config);
    const made = { provider: "openai", model: "m", input: "multimodal", dimensions: 256 };
    const file = await scratch.bundle({ ...fitting, embedding: made });
    assert.equal((await importFile(store, file, { parent: "viking://resources" })).vectors, "bundle");
    assert.deepEqual(embeddingFacts(config), made);
  });

  test("import makes new vectors on request, or if the bundle's were made with other settings", async () => {
    await using store = await scratch.store();
    const other = await scratch.bundle({ ...fitting, embedding: { ...embedding, model: "other" } });
    assert.equal((await importFile(store, other, { parent: "viking://resources/a" })).vectors, "model");
    const own = await scratch.bundle(fitting);
    assert.equal(
      (await importFile(store, own, { parent: "viking://resources/b", vectorMode: "recompute" })).vectors,
      "model",
    );
    await store.fill();
    for (const row of store.index.rows("")) assert.notDeepEqual([...store.index.vector(row.id)!], vector);
  });

  test("import with required vectors is refused with the reason if they do not fit", async () => {
    await using store = await scratch.store();
    const cases: [ForeignParts, string][] = [
      [{}, "the bundle has none"],
      [{ ...fitting, embedding: { ...embedding, model: "other" } }, "they were made with another model"],
      [{ ...fitting, embedding: { ...embedding, query_param: "q" } }, "they were made with another query_param"],
      [
        {
          ...fitting,
          content: { "a.md": "a", "b.md": "b" },
          records: [...records, { record_id: "r2", path: "b.md", kind: "file", level: 2 }],
        },
        "some are missing",
      ],
    ];
    for (const [parts, reason] of cases) {
      const file = await scratch.bundle(parts);
      await assertRefused(
        store,
        () => importFile(store, file, { parent: "viking://resources", vectorMode: "require" }),
        {
          code: "usage",
          details: { reason },
        },
      );
    }
  });

  test("export with vectors is refused if a file has no vector yet", async () => {
    await using store = await scratch.store({ "resources/docs/a.md": "alpha", "resources/docs/b.md": "beta" });
    const to = scratch.place("vectors.ovpack");
    await exportBundle(store, { uri: "viking://resources/docs", to, includeVectors: true });
    await using bundle = await Bundle.open(to);
    assert.equal(bundle.manifest.dense?.count, 2);
    fs.writeFileSync(path.join(store.folder, "resources/docs/c.md"), "not indexed");
    await assertRefused(
      store,
      () => exportBundle(store, { uri: "viking://resources/docs", to: scratch.place("x"), includeVectors: true }),
      { code: "usage" },
    );
  });

  test("import keeps no vectors in a store that searches only by words", async () => {
    await using store = await scratch.store({}, { provider: "none", model: "", dimensions: 0 });
    const done = await importFile(store, await scratch.bundle(fitting), { parent: "viking://resources" });
    assert.equal(done.vectors, "none");
    const file = await scratch.bundle(fitting);
    await assertRefused(
      store,
      () => importFile(store, file, { parent: "viking://resources/x", vectorMode: "require" }),
      {
        code: "usage",
      },
    );
  });
});

describe("export of a bundle", () => {
  test("export leaves out control files, but not abstract files and hidden files", async () => {
    await using store = await scratch.store({
      "resources/docs/a.md": "a",
      "resources/docs/.abstract.md": "about",
      "resources/docs/.env": "e",
    });
    fs.writeFileSync(path.join(store.folder, "resources/docs/.relations.json"), "{}");
    const to = scratch.place("out.ovpack");
    await exportBundle(store, { uri: "viking://resources/docs", to });
    await using bundle = await Bundle.open(to);
    assert.deepEqual(
      bundle.manifest.files.map((each) => each.path),
      [".abstract.md", ".env", "a.md"],
    );
    const records = await listOf(bundle.records());
    assert.deepEqual(
      records.map(({ path: at, level, text }) => [at, level, text]),
      [
        ["", 0, "about"],
        ["a.md", 2, undefined],
      ],
    );
  });

  test("export records the user who owns an entry in layout C, and not in B", async () => {
    await using store = await scratch.store({ "user/alice/memories/tea.md": "green" });
    for (const [layout, owner] of [
      ["C", "alice"],
      ["B", undefined],
    ] as const) {
      const to = scratch.place("owned.ovpack");
      await exportBundle(store, { uri: "viking://user/alice/memories", to, layout });
      await using bundle = await Bundle.open(to);
      const [record] = await listOf(bundle.records());
      assert.deepEqual([bundle.manifest.root.user_id, record!.user_id], [owner, owner]);
    }
  });

  test("export of a session writes its files and no records", async () => {
    await using store = await scratch.store({ "session/s1/.abstract.md": "a", "session/s1/m.jsonl": "{}" });
    const to = scratch.place("session.ovpack");
    const made = await exportBundle(store, { uri: "viking://session/s1", to });
    assert.deepEqual([made.files, made.records], [2, 0]);
  });

  test("export writes equal bytes for equal content, also after an import into another store", async () => {
    await using store = await scratch.store({
      "resources/docs/b.md": "b",
      "resources/docs/a/ü.md": "ü",
      "resources/docs/a.md": "a",
    });
    const [one, other] = [scratch.place("one"), scratch.place("other")];
    await exportBundle(store, { uri: "viking://resources/docs", to: one, includeVectors: true });
    await using second = await scratch.store();
    await importFile(second, one, { parent: "viking://resources" });
    await second.fill();
    await exportBundle(second, { uri: "viking://resources/docs", to: other, includeVectors: true });
    assert.ok(fs.readFileSync(one).equals(fs.readFileSync(other)));
  });

  test("export refuses a URI that is not a directory of a scope", async () => {
    await using store = await scratch.store({ "resources/docs/a.md": "a" });
    const to = scratch.place("none.ovpack");
    for (const [uri, code] of [
      ["viking://", "usage"],
      ["viking://resources/none", "not_found"],
      ["viking://resources/docs/a.md", "usage"],
      ["viking://queue", "usage"],
    ] as const)
      await assertRefused(store, () => exportBundle(store, { uri, to }), { code });
    fs.symlinkSync("/etc", path.join(store.folder, "resources/docs/link"));
    await assertRefused(store, () => exportBundle(store, { uri: "viking://resources/docs", to }), {
      code: "unsupported",
      details: { path: "resources/docs/link" },
    });
    await assertRefused(store, () => exportBundle(store, { uri: "viking://resources/docs/link/ssh", to }), {
      code: "refused",
    });
    assert.ok(!fs.existsSync(to));
  });
});
