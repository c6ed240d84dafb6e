import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import {
  addAttachment,
  addMessages,
  type AnyManifest,
  filesIn,
  makeArchive,
  MsgvaultWriter,
  PAGE,
  sha,
  type SnapshotInput,
  u64,
} from "../../test/fixtures/msgvault.ts";
import { asOrdinaryUser } from "../../test/fixtures/loop-file-system.ts";
import { CairnError } from "../errors.ts";
import { importMsgvault, listMsgvault } from "./import-msgvault.ts";

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-msgvault-"));
after(() => fs.rmSync(scratch, { recursive: true }));
let count = 0;
const fresh = (name: string): string => path.join(scratch, `${name}-${count++}`);
const T = (second: number): string => `2026-11-20T10:00:${String(second).padStart(2, "0")}Z`;

const home = fresh("home");
makeArchive(home);
addMessages(home, 30);
const smaller = fresh("smaller");
fs.cpSync(home, smaller, { recursive: true });
addMessages(home, 25);

/** Two snapshots; the second one is a delta, unless `input` says otherwise. */
function written(input: Partial<SnapshotInput> = {}, config: Record<string, string | number> = {}): MsgvaultWriter {
  const writer = new MsgvaultWriter(fresh("repository"), config);
  writer.add({ home: smaller, createdAt: T(1), tag: "first" });
  writer.add({ home, createdAt: T(2), delta: true, files: { "deletions/a.json": "{}" }, ...input });
  return writer;
}

test("a delta, its base, attachments and other files become the folder that was saved", async () => {
  const writer = written({ auxiliary: { vectors: "v" } });
  const to = fresh("to");
  const warnings: string[] = [];
  const result = await importMsgvault(writer.root, to, { onWarning: (message) => warnings.push(message) });
  const { "deletions/a.json": extra, "auxiliary/vectors": auxiliary, ...files } = filesIn(to);
  assert.deepEqual(files, filesIn(home));
  assert.deepEqual(
    [extra, auxiliary],
    ["{}", "v"].map((text) => sha(Buffer.from(text)).toString("hex")),
  );
  assert.equal(fs.statSync(path.join(to, "deletions/a.json")).mode & 0o777, 0o640);
  assert.deepEqual([result.database?.statistics, result.files, warnings], ["equal", 57, []]);
  const [first, second] = listMsgvault(writer.root).snapshots;
  assert.deepEqual([first!.tags, second!.parent], [["first"], first!.snapshot_id]);
  const older = fresh("to");
  await importMsgvault(writer.root, older, { snapshot: first!.snapshot_id.slice(0, 20) });
  assert.deepEqual(filesIn(older), filesIn(smaller));
});

test("chains of 30 deltas, a database that shrinks, and blobs that are not compressed are read", async () => {
  const writer = new MsgvaultWriter(fresh("repository"));
  const own = fresh("home");
  makeArchive(own);
  addMessages(own, 60);
  for (let i = 0; i <= 30; i++) {
    const database = new DatabaseSync(path.join(own, "msgvault.db"));
    database.exec(`UPDATE messages SET body = 'changed ${i}' WHERE id % 10 = ${i % 10}`);
    if (i === 20) database.exec("DELETE FROM messages WHERE id > 30; PRAGMA wal_checkpoint(TRUNCATE); VACUUM");
    database.close();
    writer.add({ home: own, createdAt: T(i), delta: i > 0, compress: i % 2 === 0 });
    if (i % 10 !== 0) continue;
    const to = fresh("to");
    await importMsgvault(writer.root, to, {});
    assert.deepEqual(filesIn(to), filesIn(own), String(i));
  }
});

test("a stream is written as it is, and attachments at other paths where the rows say", async () => {
  const stream = new MsgvaultWriter(fresh("repository"));
  stream.add({ home: fresh("none"), createdAt: T(1), stream: "all of it" });
  const to = fresh("to");
  const warnings: string[] = [];
  const result = await importMsgvault(stream.root, to, { onWarning: (message) => warnings.push(message) });
  assert.deepEqual([result.database, fs.readFileSync(path.join(to, "metadata"), "utf8")], [null, "all of it"]);
  assert.match(warnings.join(), /a stream of the format "test.stream\/1" instead of a database/);
  const named = fresh("home");
  makeArchive(named);
  addMessages(named, 3, { folder: "sms/2026" });
  const writer = new MsgvaultWriter(fresh("repository"));
  writer.add({ home: named, createdAt: T(1) });
  const placed = fresh("to");
  await importMsgvault(writer.root, placed, {});
  assert.deepEqual(filesIn(placed), filesIn(named));
});

test("a database of another program is checked", async () => {
  const writer = written({ manifest: (manifest) => (manifest.stats = { documents: 7 }) });
  const warnings: string[] = [];
  const to = fresh("to");
  const result = await importMsgvault(writer.root, to, { onWarning: (message) => warnings.push(message) });
  assert.equal(result.database?.statistics, "not_compared");
  assert.match(warnings.join(), /not one of msgvault/);
});

/** A repository with an archive of 3 messages, whose database `change` then changed, and its manifest `manifest`. */
function changedArchive(change: string, manifest: (manifest: AnyManifest) => void = () => undefined): MsgvaultWriter {
  const [home, listsOf] = [fresh("home"), fresh("home")];
  makeArchive(home);
  addMessages(home, 3, { folder: "in" });
  fs.cpSync(home, listsOf, { recursive: true });
  const database = new DatabaseSync(path.join(home, "msgvault.db"));
  database.exec(change);
  database.close();
  const writer = new MsgvaultWriter(fresh("repository"));
  writer.add({ home, listsOf, createdAt: T(1), manifest });
  return writer;
}

test("an attachment whose path is not UTF-8 keeps the bytes of its name beside one with U+FFFD in its name", async () => {
  const writer = changedArchive(`
    UPDATE attachments SET storage_path = CAST(x'696e2fe92e747874' AS TEXT) WHERE id = 1;
    UPDATE attachments SET storage_path = 'in/' || char(0xfffd) || '.txt' WHERE id = 2`);
  const to = fresh("to");
  await importMsgvault(writer.root, to, {});
  const folder = Buffer.from(path.join(to, "attachments/in/"));
  const contents = ["e92e747874", "efbfbd2e747874", "332e747874"].map((name) =>
    fs.readFileSync(Buffer.concat([folder, Buffer.from(name, "hex")]), "utf8").slice(0, 24),
  );
  assert.deepEqual(
    contents,
    [1, 2, 3].map((id) => `attachment of message ${id}\n`),
  );
  assert.equal(fs.readdirSync(folder).length, 3);
});

test("rows of another program place attachments, also twice, and attachments without a row lie at their hashes", async () => {
  const writer = changedArchive(
    `DROP TABLE labels; ALTER TABLE attachments DROP COLUMN thumbnail_path;
    INSERT INTO attachments (content_hash, storage_path) SELECT content_hash, 'again/1.txt' FROM attachments WHERE id = 1;
    INSERT INTO attachments (content_hash, storage_path) VALUES ('elsewhere', 'other/x');
    DELETE FROM attachments WHERE id = 3`,
    (manifest) => (manifest.stats = { documents: 7 }),
  );
  const to = fresh("to");
  await importMsgvault(writer.root, to, {});
  const { "msgvault.db": _, ...files } = filesIn(to);
  const [one, two, three] = [1, 2, 3].map((id) =>
    sha(Buffer.from(`attachment of message ${id}\n`.repeat(id * 50 + 1))).toString("hex"),
  );
  assert.deepEqual(files, {
    "attachments/again/1.txt": one,
    [`attachments/${three!.slice(0, 2)}/${three}`]: three,
    "attachments/in/1.txt": one,
    "attachments/in/2.txt": two,
  });
});

test("a folder whose path SQLite cannot open is refused, and nothing is left", async () => {
  const deep = path.join(fresh("deep"), "d".repeat(200), "d".repeat(200));
  fs.mkdirSync(deep, { recursive: true });
  await assert.rejects(importMsgvault(written().root, path.join(deep, "to"), {}), { code: "unsupported" });
  assert.deepEqual(fs.readdirSync(deep), []);
});

test(
  "a user who may not read the config or a pack is told so",
  { skip: process.geteuid?.() !== 0 && "needs root" },
  () => {
    fs.chmodSync(scratch, 0o755);
    const writer = written();
    const root = JSON.stringify(writer.root);
    const told = (): string[] =>
      asOrdinaryUser(
        {
          reader: new URL("../bundle/msgvault/repository.ts", import.meta.url).href,
          folders: new URL("../look/inspect/msgvault-folder.ts", import.meta.url).href,
        },
        `const told = async (work) => work().then(() => "done", ({ code, message }) => code + ": " + message);
      return [
        await told(() => folders.requireNoMsgvault(${root}, true)),
        await told(async () => {
          const found = reader.MsgvaultRepository.open(${root});
          await found.whole(found.resolve("latest").database.pageMap, "the map", 1 << 20);
        }),
      ];`,
      ) as string[];
    assert.deepEqual(told()[1], "done");
    for (const [closed, files] of [
      [0, [path.join(writer.root, "config.toml")]],
      [1, writer.packs()],
    ] as const) {
      for (const file of files) fs.chmodSync(file, 0o600);
      assert.ok(
        files.some((file) => told()[closed]!.startsWith(`permission: read ${file}: EACCES`)),
        told()[closed],
      );
      for (const file of files) fs.chmodSync(file, 0o644);
    }
  },
);

test("packs are found by their magic, whatever the ending", async () => {
  const writer = written();
  for (const file of writer.packs()) {
    fs.renameSync(file, file.replace(".mvpack", ".kpack"));
    fs.writeFileSync(file.replace(".mvpack", ".tmp"), "MVPx");
  }
  await importMsgvault(writer.root, fresh("to"), {});
});

/** Changes the bytes of a file in place. */
function edit(file: string, change: (bytes: Buffer) => Buffer | void): void {
  const bytes = fs.readFileSync(file);
  fs.writeFileSync(file, change(bytes) ?? bytes);
}

const newest = (writer: MsgvaultWriter): string => listMsgvault(writer.root).snapshots.at(-1)!.snapshot_id;
/** Replaces bytes of an object before it is hashed. */
const put = (magic: string, at: number, bytes: Buffer): Partial<SnapshotInput> => ({
  object: (own, body) => {
    if (own === magic) bytes.copy(body, at < 0 ? body.length + at : at);
    return body;
  },
});
const withManifest = (change: (manifest: AnyManifest) => void) => (): MsgvaultWriter => written({ manifest: change });
const withObject = (magic: string, at: number, bytes: Buffer) => (): MsgvaultWriter => written(put(magic, at, bytes));
const withPack = (change: (bytes: Buffer) => Buffer | void) => (): MsgvaultWriter => {
  const writer = written();
  edit(writer.packs().at(-1)!, change);
  return writer;
};
const withFooter = (at: number, bytes: Buffer) => (): MsgvaultWriter =>
  written({ footer: (footer) => (bytes.copy(footer, at), footer) });
const withExtra = (name: string) => (): MsgvaultWriter => written({ extras: ([first]) => [{ ...first!, path: name }] });
/** A snapshot whose lists of attachments do not match the rows of its database. */
const withRows = (statement: string) => (): MsgvaultWriter => {
  const own = fresh("home");
  fs.mkdirSync(own);
  fs.cpSync(path.join(home, "msgvault.db"), path.join(own, "msgvault.db"));
  const database = new DatabaseSync(path.join(own, "msgvault.db"));
  database.exec(statement);
  database.close();
  const writer = new MsgvaultWriter(fresh("repository"));
  writer.add({ home: own, listsOf: home, createdAt: T(1) });
  return writer;
};
const huge = u64(2n ** 60n);

/** Each: what is wrong, how to make such a repository, and a pattern of the error: its code, and the field, path or message. */
const MUTANTS: readonly (readonly [name: string, make: () => MsgvaultWriter, told: RegExp])[] = [
  ["config: newer readers", () => written({}, { min_reader_version: 5 }), /newer_version.*min_reader_version/s],
  ["config: encrypted", () => written({}, { encryption: "age" }), /unsupported.*encrypt/s],
  ["config: repo_id leads elsewhere", () => written({}, { repo_id: "../../../etc/cairn" }), /damaged.*repo_id/s],
  ["config: a negative version", () => written({}, { min_reader_version: -1 }), /damaged.*min_reader_version/s],
  ["manifest: newer readers", withManifest((m) => (m.min_reader_version = 9)), /newer_version.*min_reader_version/s],
  ["manifest: an unknown field", withManifest((m) => (m.encrypted = true)), /damaged.*"encrypted"/s],
  ["manifest: an unknown field below", withManifest((m) => (m.db.cipher = "x")), /damaged.*"cipher"/s],
  ["manifest: a cycle", withManifest((m) => (m.parent_id = "20261120T100002Z-".padEnd(49, "0"))), /damaged.*missing/s],
  ["manifest: a parent elsewhere", withManifest((m) => (m.parent_id = "../../secret")), /damaged.*parent_id/s],
  ["manifest: a delta without a parent", withManifest((m) => (m.parent_id = "")), /damaged.*parent_id/s],
  ["manifest: 2^60 pages", withManifest((m) => (m.db.page_count = 2 ** 60)), /damaged.*page_count/s],
  ["manifest: more pages than the map", withManifest((m) => m.db.page_count++), /damaged.*page_count/s],
  ["manifest: pages of 5000 bytes", withManifest((m) => (m.db.page_size = 5000)), /damaged.*page_size/s],
  ["manifest: pages of 8192 bytes", withManifest((m) => (m.db.page_size = 8192)), /damaged.*page_size/s],
  ["manifest: another engine", withManifest((m) => (m.db.engine = "postgres")), /damaged.*engine/s],
  ["manifest: a depth of 2^31", withManifest((m) => (m.db.map_chain_depth = 2 ** 31)), /damaged.*map_chain_depth/s],
  ["manifest: a delta called whole", withManifest((m) => (m.db.map_chain_depth = 0)), /damaged.*without a whole/s],
  [
    "manifest: map and hashes exchanged",
    withManifest((m) => ([m.db.page_map, m.db.page_hash_map] = [m.db.page_hash_map, m.db.page_map])),
    /damaged.*magic/s,
  ],
  ["manifest: a map in no index", withManifest((m) => (m.db.page_map = "ab".repeat(32))), /damaged.*in no index/s],
  ["manifest: a map with a path", withManifest((m) => (m.db.page_map = "../".repeat(21) + "a")), /damaged.*page_map/s],
  ["manifest: fewer attachments", withManifest((m) => m.attachments.blobs--), /damaged.*blobs/s],
  [
    "manifest: 2^62 bytes of attachments",
    withManifest((m) => (m.attachments.blob_bytes = 2 ** 62)),
    /damaged.*blob_bytes/s,
  ],
  ["manifest: fewer rows", withManifest((m) => m.attachments.rows--), /damaged.*rows/s],
  ["manifest: one message more", withManifest((m) => m.stats.messages++), /damaged.*messages/s],
  ["manifest: another range of dates", withManifest((m) => (m.stats.date_range[1] = "2030")), /damaged.*date_range/s],
  [
    "manifest: a stream beside the pages",
    withManifest((m) => {
      m.metadata = { format: "x", blob: m.db.page_map, bytes: 1 };
      m.format_version = m.min_reader_version = 3;
    }),
    /damaged.*"db"/s,
  ],
  [
    "manifest: a stream in version 1",
    withManifest((m) => (m.metadata = { format: "x", blob: m.db.page_map, bytes: 1 })),
    /damaged.*metadata/s,
  ],
  [
    "manifest: neither pages nor stream",
    withManifest(
      (m) => (m.db = { engine: "", page_size: 0, page_count: 0, page_map: "", page_hash_map: "", map_chain_depth: 0 }),
    ),
    /damaged.*"db"/s,
  ],
  [
    "manifest: auxiliary parts in version 1",
    () => written({ auxiliary: { a: "x" }, manifest: (m) => void (m.format_version = m.min_reader_version = 1) }),
    /damaged.*auxiliary/s,
  ],
  [
    "manifest: an auxiliary name with ..",
    () => written({ auxiliary: { a: "x" }, manifest: (m) => void (m.auxiliary[0].name = "../a") }),
    /damaged.*name/s,
  ],
  ["manifest: auxiliary parts out of order", () => written({ auxiliary: { b: "x", a: "y" } }), /damaged.*name/s],
  [
    "manifest: an auxiliary part of 2^40 bytes",
    () => written({ auxiliary: { a: "x" }, manifest: (m) => void (m.auxiliary[0].bytes = 2 ** 40) }),
    /damaged.*bytes/s,
  ],
  [
    "manifest: another size of an auxiliary part",
    () => written({ auxiliary: { a: "x" }, manifest: (m) => void m.auxiliary[0].bytes++ }),
    /damaged.*size|2 bytes/s,
  ],
  [
    "manifest: an auxiliary hash",
    () => written({ auxiliary: { a: "x" }, manifest: (m) => void (m.auxiliary[0].sha256 = "00".repeat(32)) }),
    /damaged.*sha256/s,
  ],
  [
    "manifest: a changed byte",
    () => {
      const w = written();
      edit(w.manifestFile(newest(w)), (b) => void b.write("1", b.indexOf('"messages": 5') + 12));
      return w;
    },
    /damaged.*snapshot_id/s,
  ],
  [
    "manifest: renamed",
    () => {
      const w = written();
      const id = newest(w);
      fs.renameSync(w.manifestFile(id), w.manifestFile(`${id.slice(0, -1)}${id.endsWith("0") ? "1" : "0"}`));
      return w;
    },
    /damaged.*snapshot_id/s,
  ],
  [
    "manifest: cut",
    () => {
      const w = written();
      edit(w.manifestFile(newest(w)), (b) => b.subarray(0, 300));
      return w;
    },
    /damaged.*JSON/s,
  ],
  ["index: a wrong magic", withObject("MVIX", 0, Buffer.from("MVIZ")), /damaged.*magic/s],
  ["index: version 2", withObject("MVIX", 4, Buffer.of(2)), /newer_version.*version/s],
  ["index: 2^32 entries", withObject("MVIX", 6, Buffer.from("ffffffff", "hex")), /damaged.*entry_count/s],
  ["index: not sorted", withObject("MVIX", 10, Buffer.alloc(32, 255)), /damaged.*blob_id/s],
  ["index: an offset of 2^60", withObject("MVIX", 58, huge), /damaged.*offset/s],
  ["index: a length of 2^60", withObject("MVIX", 66, huge), /damaged.*stored_len/s],
  ["index: a pack that is missing", withObject("MVIX", 42, Buffer.alloc(16, 1)), /damaged.*missing/s],
  ["index: another offset than the pack", withObject("MVIX", 58, u64(7)), /damaged.*elsewhere/s],
  ["map: an offset of 2^60", withObject("MVMD", -8, huge), /damaged.*blob_offset/s],
  ["map: an offset after the blob", withObject("MVMD", -8, u64(2 ** 27)), /damaged.*after their blob/s],
  ["map: pages after 256 MiB", withObject("MVMD", -8, u64(2 ** 28 - PAGE)), /damaged.*blob_offset.*256 MiB/s],
  [
    "map: a blob that it does not list",
    withObject("MVMD", -12, Buffer.from("ffffff7f", "hex")),
    /damaged.*blob_index/s,
  ],
  ["map: a run of 2^32 pages", withObject("MVMD", -16, Buffer.from("ffffffff", "hex")), /damaged.*page_count/s],
  ["map: a run at 2^60", withObject("MVMD", -24, huge), /damaged.*start_page/s],
  ["map: an empty run", withObject("MVMD", -16, Buffer.alloc(4)), /damaged.*page_count/s],
  ["map: 2^60 pages", withObject("MVMD", 10, huge), /damaged.*page_count/s],
  ["map: 2^32 blobs", withObject("MVMD", 18, Buffer.from("ffffffff", "hex")), /damaged.*(?:wanted|blob)/s],
  [
    "map: a base with overlaps",
    () => {
      const w = new MsgvaultWriter(fresh("repository"));
      w.add({ home, createdAt: T(1), ...put("MVMK", -24, u64(0)) } as SnapshotInput);
      return w;
    },
    /damaged.*start_page/s,
  ],
  [
    "map: a gap",
    () => {
      const w = new MsgvaultWriter(fresh("repository"));
      w.add({ home, createdAt: T(1), object: (magic, body) => (magic === "MVMK" ? withoutLastRun(body) : body) });
      return w;
    },
    /damaged.*pages are missing/s,
  ],
  ["hashes: a wrong one", withObject("MVHD", -1, Buffer.of(0x5a, 0xa5)), /damaged.*does not match its hash/s],
  ["hashes: 2^60 pages", withObject("MVHD", 10, huge), /damaged.*page_count/s],
  ["hashes: a page of 2^60", withObject("MVHD", 22, huge), /damaged.*pages/s],
  ["hashes: 2^32 entries", withObject("MVHD", 18, Buffer.from("ffffffff", "hex")), /damaged.*entry_count/s],
  ["list: a size of 2^60", withObject("MVAL", -8, huge), /damaged.*size/s],
  ["list: another size", withObject("MVAL", -8, u64(1)), /damaged.*blob_bytes/s],
  ["list: a blob in no index", withObject("MVAL", -40, Buffer.alloc(32, 7)), /damaged.*in no index/s],
  ["pack: a wrong magic", withPack((b) => void b.write("MVPX")), /damaged.*missing/s],
  ["pack: version 2", withPack((b) => void (b[4] = 2)), /newer_version.*version/s],
  ["pack: encrypted", withPack((b) => void (b[5] = 1)), /unsupported.*encrypted/s],
  ["pack: cut", withPack((b) => b.subarray(0, b.length - 50)), /damaged.*(?:trailer|footer)/s],
  ["pack: cut to its header", withPack((b) => b.subarray(0, 6)), /damaged.*size/s],
  ["pack: empty", withPack((b) => b.subarray(0, 0)), /damaged.*missing/s],
  [
    "pack: a footer of 2^31 bytes",
    withPack((b) => void b.writeUInt32LE(2 ** 31, b.length - 40)),
    /damaged.*footer_len/s,
  ],
  ["pack: a changed byte of the footer", withPack((b) => void (b[b.length - 60]! ^= 1)), /damaged.*sha256/s],
  ["pack: a changed byte of a frame", withPack((b) => void (b[40]! ^= 1)), /damaged.*(?:crc32c|frame|sha256)/s],
  ["footer: 2^32 entries", withFooter(0, Buffer.from("ffffffff", "hex")), /damaged.*entry_count/s],
  ["footer: an offset of 2^60", withFooter(36, huge), /damaged.*offset/s],
  ["footer: a stored length of 2^60", withFooter(44, huge), /damaged.*stored_len/s],
  ["footer: a length of 2^60", withFooter(52, huge), /damaged.*raw_len/s],
  ["footer: a length of 4 GiB", withFooter(52, u64(2 ** 32)), /damaged.*(?:raw_len|content_size|at most)/s],
  ["footer: an encrypted blob", withFooter(60, Buffer.of(3)), /damaged.*flags/s],
  ["footer: a wrong CRC", withFooter(61, Buffer.from("01020304", "hex")), /damaged.*(?:crc32c|checksum)/s],
  [
    "frame: other content of the same length",
    () =>
      written({
        compress: false,
        frame: (stored, raw) => (raw.length > 20 * PAGE || raw.length < 1000 ? stored : Buffer.alloc(stored.length, 3)),
      }),
    /damaged.*(?:sha256|id|magic)/s,
  ],
  ...(
    [
      ["a window of 2^41 bytes", [0x28, 0xb5, 0x2f, 0xfd, 0x00, 31 << 3]],
      ["a window of 64 MiB", [0x28, 0xb5, 0x2f, 0xfd, 0x00, 16 << 3]],
      ["a dictionary", [0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 200]],
      ["another size", [0x28, 0xb5, 0x2f, 0xfd, 0x20, 7]],
      ["no frame", [1, 2, 3, 4, 5, 6]],
    ] as const
  ).map(([name, head]): (typeof MUTANTS)[number] => [
    `frame: ${name}`,
    () => written({ frame: (stored, raw) => (stored === raw ? stored : Buffer.concat([Buffer.from(head), stored])) }),
    /damaged.*frame/s,
  ]),
  [
    "frame: a bomb",
    () => written({ frame: (stored, raw) => (stored === raw ? stored : Buffer.concat([stored, stored])) }),
    /damaged.*(?:frame|raw_len)/s,
  ],
  ["extra: ..", withExtra("a/../../b"), /damaged.*\.\./s],
  ["extra: absolute", withExtra("/etc/passwd"), /damaged.*absolute/s],
  ["extra: the database", withExtra("msgvault.db"), /damaged.*msgvault\.db/s],
  ["extra: the log of the database", withExtra("MSGVAULT.DB-wal"), /damaged.*belongs/s],
  ["extra: below attachments", withExtra("attachments/ab/x"), /damaged.*belongs/s],
  ["extra: an empty name", withExtra("a//b"), /damaged.*empty/s],
  ["extra: twice", () => written({ extras: ([e]) => [e, e] }), /damaged.*two files/s],
  [
    "extra: below another",
    () => written({ extras: ([e]) => [e, { ...e!, path: `${e!.path}/b` }] }),
    /damaged.*two files/s,
  ],
  ["extra: another size", () => written({ extras: ([e]) => [{ ...e!, size: 9 }] }), /damaged.*9/s],
  ["extra: no list", () => written({ extras: () => "x" }), /damaged.*entries/s],
  [
    "rows: an attachment at ..",
    withRows("UPDATE attachments SET storage_path = '../../x' WHERE id = 3"),
    /damaged.*\.\./s,
  ],
  [
    "rows: an attachment at an absolute path",
    withRows("UPDATE attachments SET storage_path = '/tmp/x' WHERE id = 3"),
    /damaged.*absolute/s,
  ],
  [
    "rows: two attachments at one path",
    withRows("UPDATE attachments SET storage_path = 'x' WHERE id IN (3, 4)"),
    /damaged.*two files/s,
  ],
  [
    "rows: another hash",
    withRows("UPDATE attachments SET content_hash = substr(content_hash, 2) || 'f' WHERE id = 3"),
    /damaged.*in no list/s,
  ],
  [
    "rows: an attachment without a row",
    withRows("UPDATE attachments SET content_hash = (SELECT content_hash FROM attachments WHERE id = 4) WHERE id = 3"),
    /damaged.*(?:no place|attachment_blobs|blobs)/s,
  ],
];

function withoutLastRun(body: Buffer): Buffer {
  const blobs = body.readUInt32LE(18);
  const at = 22 + blobs * 32;
  body.writeUInt32LE(body.readUInt32LE(at) - 1, at);
  return body.subarray(0, body.length - 24);
}

test(`each of ${MUTANTS.length} damaged or hostile repositories is refused by its field, and nothing is written`, async () => {
  for (const [name, make, told] of MUTANTS) {
    const { root } = make();
    const before = filesIn(root);
    const beside = fresh("beside");
    fs.mkdirSync(beside);
    const error = await importMsgvault(root, path.join(beside, "to"), {}).then(
      () => assert.fail(`${name}: imported`),
      (failed: unknown) => failed,
    );
    assert.ok(error instanceof CairnError, `${name}: ${String((error as Error).stack)}`);
    assert.match(`${error.code} ${error.message} ${JSON.stringify(error.details ?? {})}`, told, name);
    assert.deepEqual([fs.readdirSync(beside), filesIn(root)], [[], before], name);
  }
});

test("a flipped byte anywhere in a repository is refused or changes nothing that is imported", async () => {
  const small = fresh("home");
  makeArchive(small);
  addMessages(small, 2);
  const writer = new MsgvaultWriter(fresh("repository"));
  writer.add({ home: small, createdAt: T(1), files: { note: "x" } });
  const wanted = { ...filesIn(small), note: sha(Buffer.from("x")).toString("hex") };
  for (const name of Object.keys(filesIn(writer.root))) {
    const file = path.join(writer.root, name);
    const bytes = fs.readFileSync(file);
    for (let at = 0; at < bytes.length; at += Math.max(1, Math.floor(bytes.length / 25))) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 0x10;
      fs.writeFileSync(file, changed);
      const to = fresh("flipped");
      try {
        await importMsgvault(writer.root, to, {});
        assert.deepEqual(filesIn(to), wanted, `${name} at ${at}`);
      } catch (error) {
        if (!(error instanceof CairnError)) throw error;
        assert.match(
          error.code,
          /^(?:damaged|newer_version|unsupported|not_found)$/,
          `${name} at ${at}: ${error.message}`,
        );
        assert.ok(!fs.existsSync(to));
      }
    }
    fs.writeFileSync(file, bytes);
  }
});

test("a large attachment is streamed, and a wrong end of it leaves nothing", async () => {
  const own = fresh("home");
  makeArchive(own);
  addMessages(own, 1);
  const database = new DatabaseSync(path.join(own, "msgvault.db"));
  addAttachment(own, database, Buffer.alloc(70 << 20, "large attachment "), { message: 1 });
  database.close();
  const writer = new MsgvaultWriter(fresh("repository"));
  writer.add({ home: own, createdAt: T(1) });
  const to = fresh("to");
  await importMsgvault(writer.root, to, {});
  assert.deepEqual(filesIn(to), filesIn(own));
});
