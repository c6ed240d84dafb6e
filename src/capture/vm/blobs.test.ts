import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import type { CairnError } from "../../errors.ts";
import { addBlob, addImage, checkDisk, imageSize, newDisk, removeUnusedBlobs, shareBlobs } from "./blobs.ts";
import { blobFile, machinesFolder } from "./machine.ts";

const FOLDER = mkdtempSync(path.join(tmpdir(), "cairn-blobs-"));
after(() => rmSync(FOLDER, { recursive: true, force: true }));
const skip = spawnSync("qemu-img", ["--version"]).status === 0 ? false : "qemu-img is not installed";
const root = machinesFolder(path.join(FOLDER, "machines"));
const at = (name: string): string => path.join(FOLDER, name);
const image = (...args: string[]): void => void execFileSync("qemu-img", args, { stdio: "ignore" });
const refused = async (work: () => unknown, code: string, message: RegExp): Promise<void> => {
  await assert.rejects(
    async () => await work(),
    (error: CairnError) => error.code === code && message.test(error.message),
  );
};

test("addImage stores a raw or qcow2 image as qcow2 by its digest, with its holes", { skip }, async () => {
  writeFileSync(at("raw"), Buffer.alloc(1 << 20, 7));
  truncateSync(at("raw"), 1 << 30);
  const digest = await addImage(root, at("raw"));
  assert.equal(imageSize(root, digest), 1 << 30);
  assert.ok(readFileSync(blobFile(root, digest)).length < 4 << 20);
  image("convert", "-O", "qcow2", at("raw"), at("own.qcow2"));
  assert.equal(await addImage(root, at("own.qcow2")), digest, "equal content is kept once");
});

test(
  "addImage converts VMDK and VHDX images, compares a given digest, and refuses other files by name",
  { skip },
  async () => {
    const digest = await addImage(root, at("raw"));
    for (const form of ["vmdk", "vhdx"]) {
      image("convert", "-O", form, at("raw"), at(`own.${form}`));
      assert.equal(imageSize(root, await addImage(root, at(`own.${form}`))), 1 << 30, form);
      const sha256 = execFileSync("sha256sum", [at(`own.${form}`)], { encoding: "utf8" }).slice(0, 64);
      assert.equal(await addImage(root, at(`own.${form}`), { sha256 }), await addImage(root, at(`own.${form}`)));
    }
    assert.equal(await addImage(root, at("own.vmdk")), digest, "with the content of the raw image");
    await refused(() => addImage(root, at("raw"), { sha256: "0".repeat(64) }), "damaged", /is expected/);
    image("create", "-f", "vmdk", "-b", at("own.vmdk"), "-F", "vmdk", at("child.vmdk"));
    await refused(() => addImage(root, at("child.vmdk")), "refused", /refers to another file/);
    image("convert", "-O", "vdi", at("raw"), at("own.vdi"));
    await refused(() => addImage(root, at("own.vdi")), "usage", /VDI/);
    writeFileSync(at("own.gz"), Buffer.from("1f8b0800", "hex"));
    await refused(() => addImage(root, at("own.gz")), "usage", /gzip/);
  },
);

test("addImage refuses a VMDK image that names a parent at any place of its descriptor", { skip }, async () => {
  image("create", "-f", "raw", at("empty.raw"), "2M");
  writeFileSync(at("parent.raw"), Buffer.alloc(2 << 20, "secret"));
  image("convert", "-O", "vmdk", at("empty.raw"), at("alone.vmdk"));
  const bytes = readFileSync(at("alone.vmdk"));
  const end = bytes.indexOf(0, 512);
  const descriptor = bytes.subarray(512, end).toString();
  await addImage(root, at("alone.vmdk"));
  const hint = `parentFileNameHint="${at("parent.raw")}"\n`;
  for (const changed of [
    `# parentCID=12345678\n${descriptor}`,
    descriptor.replace("parentCID=ffffffff", `#parentCID=12345678\nparentCID=ffffffff`),
    descriptor.replace("parentCID=ffffffff", "parentCID=0000000f"),
    `${descriptor}${hint}`,
    `${descriptor}#${hint}`,
    `${descriptor.replace("parentCID=ffffffff", " parentCID=12345678")}${hint}`,
  ]) {
    const copy = Buffer.from(bytes);
    copy.fill(0, 512, 512 + 10_240);
    copy.write(changed, 512);
    writeFileSync(at("parent.vmdk"), copy);
    await refused(() => addImage(root, at("parent.vmdk")), "refused", /refers to another file/);
  }
});

test(
  "addImage converts the bytes whose digest it compared, and opens no file that an image names",
  { skip },
  async () => {
    const program = execFileSync("sh", ["-c", "command -v qemu-img"], { encoding: "utf8" }).trim();
    const before = process.env["PATH"];
    mkdirSync(at("bin"));
    // Somebody exchanges the image's content after it was compared.
    const exchanged = (by: string, image: string): void =>
      writeFileSync(at("bin/qemu-img"), `#!/bin/sh\ncp ${at(by)} ${at(image)} && exec ${program} "$@"\n`, {
        mode: 0o755,
      });
    process.env["PATH"] = `${at("bin")}:${before}`;
    try {
      writeFileSync(at("given"), Buffer.alloc(1 << 20, 1));
      writeFileSync(at("other"), Buffer.alloc(1 << 20, 2));
      const sha256 = execFileSync("sha256sum", [at("given")], { encoding: "utf8" }).slice(0, 64);
      exchanged("other", "given");
      const kept = await addImage(root, at("given"), { sha256 });
      const back = at("back");
      execFileSync(program, ["convert", "-O", "raw", blobFile(root, kept), back]);
      assert.ok(readFileSync(back).equals(Buffer.alloc(1 << 20, 1)));
      execFileSync(program, ["create", "-q", "-f", "qcow2", at("late.qcow2"), "1M"]);
      execFileSync(program, [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        at("other"),
        "-F",
        "raw",
        at("late-backed.qcow2"),
        "1M",
      ]);
      exchanged("late-backed.qcow2", "late.qcow2");
      const late = await addImage(root, at("late.qcow2"));
      execFileSync(program, ["convert", "-O", "raw", blobFile(root, late), back]);
      assert.ok(readFileSync(back).equals(Buffer.alloc(1 << 20)));
    } finally {
      process.env["PATH"] = before;
    }
  },
);

test("addImage and checkDisk refuse an image that refers to another file", { skip }, async () => {
  writeFileSync(at("secret"), "root:x:0:0\n".repeat(100));
  image("create", "-f", "qcow2", "-b", at("secret"), "-F", "raw", at("backed.qcow2"));
  image("create", "-f", "qcow2", "-o", `data_file=${at("data")}`, at("external.qcow2"), "1M");
  for (const name of ["backed.qcow2", "external.qcow2"]) {
    await refused(() => addImage(root, at(name)), "refused", /refers to another file/);
    await refused(() => checkDisk(at(name), 1 << 20), "refused", /refers to another file/);
  }
  const bytes = readFileSync(at("own.qcow2"));
  bytes.writeUInt32BE(1, 32);
  writeFileSync(at("encrypted.qcow2"), bytes);
  await refused(() => addImage(root, at("encrypted.qcow2")), "refused", /encrypted/);
  await refused(() => checkDisk(at("raw"), 1 << 30), "damaged", /not a qcow2/);
  await refused(() => checkDisk(at("own.qcow2"), 5), "damaged", /recorded are 5/);
  await refused(() => checkDisk(at("none"), 5), "damaged", /missing/);
  assert.deepEqual(
    readdirSync(path.join(root, ".shared/blobs")).filter((name) => name.startsWith(".")),
    [],
  );
  mkdirSync(at("disks"));
  await newDisk(at("disks"), 0, 1 << 20);
  checkDisk(at("disks/disk-0.qcow2"), 1 << 20);
});

test(
  "addBlob refuses content with another digest, and removeUnusedBlobs removes an unused blob",
  { skip },
  async () => {
    writeFileSync(at("file"), "content");
    const digest = await addBlob(root, at("file"));
    await refused(() => addBlob(root, at("file"), { digest: "0".repeat(64) }), "damaged", /another content/);
    writeFileSync(blobFile(root, digest), "damaged");
    assert.equal(await addBlob(root, at("file"), { digest }), digest);
    assert.equal(readFileSync(blobFile(root, digest), "utf8"), "content", "a damaged blob is replaced");
    writeFileSync(at("file-2"), "content");
    assert.equal(await addBlob(root, at("file-2"), { digest, moves: true }), digest);
    assert.ok(!existsSync(at("file-2")));
    {
      using _shared = await shareBlobs(root, {});
      await removeUnusedBlobs(root);
      assert.ok(existsSync(blobFile(root, digest)), "somebody adds files");
    }
    await removeUnusedBlobs(root);
    assert.ok(!existsSync(blobFile(root, digest)));
  },
);

test("a blob with the right content stays while others add it, and a damaged one is replaced", async () => {
  writeFileSync(at("memory"), "memory of many clones");
  const inodes = await Promise.all(
    Array.from({ length: 8 }, async () => statSync(blobFile(root, await addBlob(root, at("memory")))).ino),
  );
  assert.equal(new Set(inodes).size, 1, "a clone that verified the blob finds it unchanged");
  const digest = await addBlob(root, at("memory"));
  const blob = blobFile(root, digest);
  assert.equal(statSync(blob).ino, inodes[0]);
  writeFileSync(blob, "damaged");
  assert.equal(await addBlob(root, at("memory")), digest);
  assert.equal(readFileSync(blob, "utf8"), "memory of many clones");
});
