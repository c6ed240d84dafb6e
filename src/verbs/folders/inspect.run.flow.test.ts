import assert from "node:assert/strict";
import { PROGRAM } from "../../formats/program.ts";
import { hasCode, testFolder } from "../../keep/testing-folder.ts";
import { unfinishedIn } from "../../workspace/points/journals.ts";
import type { InspectResult } from "./inspect.ts";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
}

test("inspect names the format of every file that Cairn wrote, and shows no secret", async (t) => {
  const { root, client, library, write } = await testFolder(t, { a: "one", "deep/b": "two" });
  const first = await client.save({ message: "first" });
  write("a", "changed");
  await client.save({ cause: { kind: "tool_call", tool: "x" } });
  await client.restore({ target: first.save_point_id });
  await client.pin("head");
  await client.tag("head", { add: ["good"] });
  await client.setPolicy({ retention: { keepLast: 3 } });
  await client.verify?.("head");
  assert.equal((await client.history(undefined, 0, { tag: "good" })).save_points.length, 1);
  const results = new Map<string, InspectResult>();
  for (const path of filesBelow(join(root, "state"))) results.set(path, await library.inspect(path));
  const formats = new Set([...results.values()].map(({ format }) => format));
  for (const format of [
    "control-directory workspace workspace-state save-point-descriptor save-point-pin save-point-tags policy registration lock",
    "point-catalog point-texts stat-cache index-cache store-key store-password restic-config restic-key restic-index restic-snapshot restic-pack",
  ].flatMap((line) => line.split(" ")))
    assert.ok(formats.has(format), `${format} is missing in ${[...formats].join(" ")}`);
  const control = client.controlDirectory;
  const secrets = [
    readFileSync(join(control, "store-password"), "utf8").trim(),
    ...Object.values(JSON.parse(readFileSync(join(control, "store-key"), "utf8")) as object).flatMap((value: unknown) =>
      typeof value === "string" ? [value] : Object.values(value as object),
    ),
  ];
  const shown = JSON.stringify([...results.values()]);
  for (const secret of secrets) assert.ok(!shown.includes(String(secret)));
});

test("inspect decodes the marks and the records of unfinished work in a control directory", async (t) => {
  const { client, library } = await testFolder(t, { a: "one" });
  const { save_point_id: id } = await client.save();
  const workspace = join(client.controlDirectory, "workspaces/main");
  const journal = join(workspace, "journal");
  writeFileSync(join(workspace, "holds-trees"), "");
  const uuid = "c".repeat(32);
  const conversion = { name: ".cairn-original-0123456789abcdef", uuid, since: "1152921504606846976", made: "0" };
  unfinishedIn(journal, "conversion").begin(conversion);
  const exchange = { target: id, undo_id: id, kind: "undo", staging: ".cairn-restore-0123456789abcdef", uuid } as const;
  unfinishedIn(journal, "exchange").begin(exchange);
  const folder = { aside: ".cairn-tmp-1-0123456789abcdef", made: "1.2.3" };
  unfinishedIn(journal, "missing-folder").begin(folder);
  const contents: unknown[] = [];
  for (const name of ["conversion", "exchange", "missing-folder"]) {
    const { path, format, content } = await library.inspect(join(journal, `${name}.json`));
    assert.deepEqual([path, format], [join(journal, `${name}.json`), "unfinished-work"]);
    const { checksum, ...rest } = content as Record<string, unknown>;
    assert.match(String(checksum), /^[0-9a-f]{64}$/);
    contents.push(rest);
  }
  assert.deepEqual(contents, [
    { work: "conversion", by: PROGRAM, ...conversion },
    { work: "exchange", by: PROGRAM, ...exchange },
    { work: "missing-folder", by: PROGRAM, ...folder },
  ]);
  assert.equal((await library.inspect(join(workspace, "holds-trees"))).format, "held-trees-mark");
  const record = join(journal, "conversion.json");
  writeFileSync(record, readFileSync(record, "utf8").replace('since":"1', 'since":"2'));
  await assert.rejects(library.inspect(record), hasCode("damaged"));
});

test("inspect decodes the files of a repository", async (t) => {
  const { client, library, root } = await testFolder(t, { a: "one" });
  const point = await client.save();
  const { repository, password_file } = await client.store();
  const of = async (kind: string): Promise<InspectResult> => library.inspect(filesBelow(join(repository, kind))[0]!);
  const snapshot = (await of("snapshots")).content as { tags: string[]; paths: string[] };
  assert.deepEqual(snapshot.tags, [`cairn:${point.save_point_id}`]);
  const index = (await of("index")).content as { packs: { id: string; blobs: unknown[] }[] };
  const pack = (await of("data")).content as { blobs: { id: string; offset: number }[] };
  assert.ok(index.packs.some(({ blobs }) => blobs.length === pack.blobs.length));
  assert.equal(pack.blobs[0]?.offset, 0);
  // Elsewhere, the password opens it.
  const elsewhere = join(root, "elsewhere");
  mkdirSync(join(elsewhere, "keys"), { recursive: true });
  copyFileSync(join(repository, "config"), join(elsewhere, "config"));
  await assert.rejects(library.inspect(join(elsewhere, "config")), hasCode("not_found"));
  const key = filesBelow(join(repository, "keys"))[0]!;
  copyFileSync(key, join(elsewhere, "keys", key.slice(-64)));
  const { format, version } = await library.inspect(join(elsewhere, "config"), { passwordFile: password_file });
  assert.deepEqual([format, version], ["restic-config", 2]);
  writeFileSync(join(root, "wrong"), "wrong\n");
  await assert.rejects(
    library.inspect(join(elsewhere, "config"), { passwordFile: join(root, "wrong") }),
    hasCode("wrong_password"),
  );
});

test("inspect decodes the files in the state and cache directories after a restore of a backup", async (t) => {
  const { client, library, root } = await testFolder(t, { a: "one" });
  await client.save();
  const env = { ...process.env, XDG_CACHE_HOME: join(root, "caches") };
  const place = join(root, "repository");
  const repository = await library.initRepository({ repository: place, password: "password", env });
  const { snapshot } = await client.createBackup(repository);
  await repository.restore("latest", join(root, "restored"));
  await repository.close();
  const formats = new Map<string, InspectResult>();
  for (const path of [...filesBelow(join(root, "state")), ...filesBelow(join(root, "caches"))]) {
    const inspected = await library.inspect(path);
    formats.set(inspected.format, inspected);
  }
  for (const format of ["receipt", "receipt-key", "known-trees", "seen-snapshots", "index-cache", "cachedir-tag"])
    assert.ok(formats.has(format), format);
  assert.equal((formats.get("receipt")!.content as { snapshot_id: string }).snapshot_id, snapshot!.snapshot_id);
  assert.deepEqual(formats.get("receipt-key")!.content, { note: "a secret: not shown" });
  writeFileSync(join(root, "spare"), "\x01\x02");
  assert.deepEqual((await library.inspect(join(root, "spare"))).content, { bytes: 2 });
  const packs = ["ab", "cd"].map((each) => each.repeat(32));
  writeFileSync(join(root, "damaged-packs"), `${packs.join("\n")}\n`);
  assert.deepEqual((await library.inspect(join(root, "damaged-packs"))).content, { packs });
});

test("inspect shows the fields of each entry in the stat cache", async (t) => {
  const { client, library } = await testFolder(t, { a: "one", "deep/b": "seven77" });
  await client.save();
  const cache = join(client.controlDirectory, "cache", `stat-${client.workspace.id}`);
  const { content } = await library.inspect(cache);
  const { sample, entries } = content as { entries: number; sample: { path: string; size: number; kind: string }[] };
  assert.equal(entries, 3);
  assert.deepEqual(
    sample.map(({ path, size, kind }) => [path, kind, kind === "file" ? size : 0]),
    [
      ["a", "file", 3],
      ["deep", "directory", 0],
      ["deep/b", "file", 7],
    ],
  );
  truncateSync(cache, statSync(cache).size - 1);
  await assert.rejects(library.inspect(cache), hasCode("damaged"));
});

test("inspect fails with damaged for a damaged file, and with unsupported for a file that Cairn did not write", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const descriptor = filesBelow(join(client.controlDirectory, "workspaces")).find((path) =>
    path.endsWith("descriptor.json"),
  )!;
  const text = readFileSync(descriptor, "utf8");
  writeFileSync(join(root, "descriptor.json"), text.slice(0, 100));
  await assert.rejects(library.inspect(join(root, "descriptor.json")), hasCode("damaged"));
  writeFileSync(join(root, "x"), text.replace('"version":1', '"version":9'));
  await assert.rejects(library.inspect(join(root, "x")), hasCode("newer_version"));
  const pack = filesBelow(join(client.controlDirectory, "store", "snapshots"))[0]!;
  const bytes = readFileSync(pack);
  bytes[20]! ^= 1;
  writeFileSync(pack, bytes);
  await assert.rejects(library.inspect(pack), hasCode("damaged"));
  await assert.rejects(library.inspect(join(folder, "a")), hasCode("unsupported"));
  await assert.rejects(library.inspect(folder), hasCode("unsupported"));
  await assert.rejects(library.inspect(join(folder, "nowhere")), hasCode("not_found"));
});

test("inspect cuts long lists and gives the number of omitted items", async (t) => {
  const { client, library, root } = await testFolder(t);
  const id = "a".repeat(32);
  const lines = Array.from({ length: 1500 }, (_, i) => `${String(i + 1).padStart(10, "0")} ${id} s\n`);
  writeFileSync(join(root, "points-main"), lines.join(""));
  const { content } = await library.inspect(join(root, "points-main"));
  const { points } = content as { points: unknown[] };
  assert.equal(points.length, 1001);
  assert.equal(points.at(-1), "… 500 more");
  await client.close();
});

test("docs/formats names the format of every record", () => {
  const source = resolve(import.meta.dirname, "../..");
  const formats = new Set<string>();
  for (const path of filesBelow(source)) {
    if (!path.endsWith(".ts") || /test/.test(path)) continue;
    for (const [, format] of readFileSync(path, "utf8").matchAll(
      /"(cairn\.(?!json|state\.v|meta\.v|sock|service)[a-z-]+)"/g,
    ))
      formats.add(format!);
  }
  const docs = filesBelow(resolve(import.meta.dirname, "../../../docs/formats"))
    .map((path) => readFileSync(path, "utf8"))
    .join("\n");
  assert.deepEqual(
    [...formats].filter((format) => !docs.includes(format)),
    [],
  );
});
