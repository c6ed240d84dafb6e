import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Client, ReadOptions } from "../contract/index.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

async function bytesOf(
  client: Client,
  target: string | null,
  path: string,
  options: ReadOptions = {},
): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of client.read(target, path, options)) pieces.push(piece);
  return Buffer.concat(pieces);
}

test("read returns the given range of a file's bytes, from a point and from the folder", async (t) => {
  const { client, folder } = await testFolder(t);
  const all = Buffer.concat([randomBytes(5 << 20), Buffer.alloc(3 << 20), Buffer.from("the end")]);
  writeFileSync(join(folder, "large"), all);
  await client.save();
  for (const target of ["head", null]) {
    const ranges = [
      [0, 10],
      [1 << 20, 3],
      [all.length - 3, 100],
      [(5 << 20) - 2, 4],
      [all.length, 1],
      [1e12, 1],
    ] as const;
    for (const [offset, length] of ranges)
      assert.deepEqual(
        await bytesOf(client, target, "large", { offset, length }),
        all.subarray(offset, offset + length),
      );
    assert.deepEqual(await bytesOf(client, target, "large", { offset: 7 << 20 }), all.subarray(7 << 20));
    assert.deepEqual(await bytesOf(client, target, "large", { length: 0 }), Buffer.alloc(0));
    await assert.rejects(bytesOf(client, target, "large", { offset: -1 }), hasCode("usage"));
    await assert.rejects(bytesOf(client, target, "large", { length: 0.5 }), hasCode("usage"));
  }
});

test("read returns a range of a file although other packs of the file are damaged", async (t) => {
  const { client, folder } = await testFolder(t);
  const all = randomBytes(40 << 20);
  writeFileSync(join(folder, "large"), all);
  await client.save();
  const data = join(client.controlDirectory, "store/data");
  const packs = readdirSync(data, { recursive: true, withFileTypes: true }).filter((each) => each.isFile());
  const readable = new Set<string>();
  const offset = (39 << 20) + 5;
  // The packs without which the range cannot be read are few of them.
  for (const pack of packs) {
    const file = join(pack.parentPath, pack.name);
    const bytes = readFileSync(file);
    chmodSync(file, 0o600);
    writeFileSync(file, Buffer.alloc(bytes.length));
    const isRead = await bytesOf(client, "head", "large", { offset, length: 9 }).then(
      (found) => found.equals(all.subarray(offset, offset + 9)),
      () => false,
    );
    if (isRead) readable.add(pack.name);
    writeFileSync(file, bytes);
  }
  assert.ok(packs.length > 1 && readable.size > 0, `${readable.size} of ${packs.length} packs are not needed`);
});

/** A folder with everything that an archive can have, and its point. */
async function oddFolder(t: Parameters<typeof testFolder>[0]): Promise<Awaited<ReturnType<typeof testFolder>>> {
  const made = await testFolder(t, { "d/a": "one", "d/sub/b": "two", "d-other": "no", e: "three" });
  const { folder, client } = made;
  const d = Buffer.from(join(folder, "d/"));
  writeFileSync(Buffer.concat([d, Buffer.of(0xff, 0x2e)]), "not UTF-8");
  writeFileSync(join(folder, "d/ü"), "UTF-8");
  writeFileSync(join(folder, "d/empty"), "");
  symlinkSync("../e", join(folder, "d/link"));
  linkSync(join(folder, "d/a"), join(folder, "d/again"));
  chmodSync(join(folder, "d/sub/b"), 0o4755);
  utimesSync(join(folder, "d/a"), 1_700_000_001, 1_700_000_001);
  writeFileSync(join(folder, "d/large"), Buffer.concat([randomBytes(3 << 20), Buffer.alloc(2 << 20)]));
  execFileSync("mkfifo", [join(folder, "d/pipe")]);
  mkdirSync(join(folder, "d/none"));
  await client.save();
  return made;
}

/** What `find` says of a folder: kind, mode, time and name, and the bytes of its files. */
function listed(folder: string): string {
  const find =
    "find d -printf '%y %m %P %l\\n' -o -false; find d -type f -print0 | sort -z | xargs -0 sha256sum; stat -c %Y d/a";
  const lines = execFileSync("sh", ["-c", find], { cwd: folder, encoding: "latin1" }).split("\n");
  return lines.toSorted().join("\n");
}

test("read returns a folder as a tar archive that tar extracts", async (t) => {
  const { client, root, folder } = await oddFolder(t);
  const tar = join(root, "d.tar");
  writeFileSync(tar, await bytesOf(client, "head", "d", { archive: "tar" }));
  const to = join(root, "to");
  mkdirSync(to);
  execFileSync("tar", ["xpf", tar, "-C", to]);
  assert.equal(listed(to), listed(folder));
  assert.equal(statSync(join(to, "d/a")).ino, statSync(join(to, "d/again")).ino);
});

test("read returns a folder as a zip archive that Python accepts, with modes, times, links and exact names", async (t) => {
  const { client, root, folder } = await oddFolder(t);
  const zip = join(root, "d.zip");
  const warnings: string[] = [];
  writeFileSync(zip, await bytesOf(client, "head", "d", { archive: "zip", onWarning: (each) => warnings.push(each) }));
  assert.deepEqual(warnings, ['not in the archive, because zip cannot store them: 1 entry, for example "d/pipe"']);
  const script = `import zipfile,sys,hashlib,json
z=zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None
print(json.dumps([[i.filename.encode("cp437" if not i.flag_bits & 0x800 else "utf8").hex(), oct(i.external_attr>>16), hashlib.sha256(z.read(i)).hexdigest()] for i in z.infolist()]))`;
  const rows = JSON.parse(execFileSync("python3", ["-c", script, zip], { encoding: "utf8" })) as string[][];
  const names = rows.map(([name]) => Buffer.from(name!, "hex").toString("latin1"));
  const latin = (text: string): string => Buffer.from(text).toString("latin1");
  assert.deepEqual(names, [
    "d/",
    "d/a",
    "d/again",
    "d/empty",
    "d/large",
    "d/link",
    "d/none/",
    "d/sub/",
    "d/sub/b",
    latin("d/ü"),
    "d/\xff.",
  ]);
  const modeOf = (name: string): string => rows[names.indexOf(name)]![1]!;
  assert.deepEqual(
    [modeOf("d/sub/b"), modeOf("d/link"), modeOf("d/none/").slice(0, 4)],
    ["0o104755", "0o120777", "0o40"],
  );
  rmSync(join(folder, "d/pipe"));
  const to = join(root, "to");
  execFileSync("unzip", ["-q", "-K", zip, "-d", to, "-x", "d/\u00ff."], { stdio: "ignore" });
  assert.deepEqual(readFileSync(join(to, "d/large")), readFileSync(join(folder, "d/large")));
  assert.equal(statSync(join(to, "d/a")).mtimeMs, 1_700_000_001_000);
});

test("an archive of several paths contains each entry once, and a missing path fails with not_found", async (t) => {
  const { client, root } = await testFolder(t, { "d/a": "1", "d/sub/b": "2", e: "3", f: "4" });
  await client.save();
  const tar = join(root, "some.tar");
  writeFileSync(tar, await bytesOf(client, "head", "", { archive: "tar", paths: ["e", "d", "d/sub/b", "d"] }));
  const names = execFileSync("tar", ["tf", tar], { encoding: "utf8" }).trim().split("\n");
  assert.deepEqual(names, ["d/", "d/a", "d/sub/", "d/sub/b", "e"]);
  await assert.rejects(bytesOf(client, "head", "", { archive: "tar", paths: ["e", "gone"] }), hasCode("not_found"));
  await assert.rejects(bytesOf(client, "head", "d", { archive: "tar", paths: ["e"] }), hasCode("usage"));
  await assert.rejects(bytesOf(client, null, "d", { archive: "tar" }), hasCode("usage"));
  await assert.rejects(bytesOf(client, "head", "", { paths: ["e"] }), hasCode("usage"));
  await assert.rejects(bytesOf(client, "head", "", { archive: "zip", offset: 1 }), hasCode("usage"));
});

test("an archive stops with an error that names the unreadable file", async (t) => {
  const { client, folder } = await testFolder(t, { "d/a": "1" });
  writeFileSync(join(folder, "d/lost"), randomBytes(8 << 20));
  await client.save();
  const data = join(client.controlDirectory, "store/data");
  for (const each of readdirSync(data, { recursive: true, withFileTypes: true })) {
    const file = join(each.parentPath, each.name);
    if (!each.isFile() || statSync(file).size < 1 << 20) continue;
    chmodSync(file, 0o600);
    const bytes = readFileSync(file);
    writeFileSync(file, bytes.fill(0, 0, 1 << 20));
  }
  for (const archive of ["tar", "zip"] as const)
    await assert.rejects(bytesOf(client, "head", "d", { archive }), {
      code: "damaged",
      message: /the archive stops at "d\/(a|lost)": /,
    });
});
