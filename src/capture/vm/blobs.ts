import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  utimesSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { advice, CairnError, option } from "../../errors.ts";
import { blobsOf, diskFile } from "../../formats/machine/machine.ts";
import { runTool } from "../../fs/child-pipes.ts";
import { fsyncDirectory, temporaryName } from "../../fs/durable.ts";
import { digestOfFile } from "../../fs/file-digest.ts";
import { moveToFree } from "../../fs/linux/exchange-folders.ts";
import { acquireLock, type Lock } from "../../fs/lock.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { unfinishedIn } from "../../fs/work-directory.ts";
import { newPacer } from "../../pacer.ts";
import { programOf } from "./host.ts";
import { blobFile, machinesIn, type OperationOptions, sharedFile } from "./machine.ts";

/** Files that machines share: images, kernels, memory mapped by clones. Each is stored once, by its digest, and never changes. */

/** Copies files into a folder, with their holes; shares content if the file system can and `shared` is not false. */
export async function copyFiles(
  files: readonly string[],
  into: string,
  { shared = true, signal }: { shared?: boolean; signal?: AbortSignal | undefined } = {},
): Promise<void> {
  if (files.length === 0) return;
  const how = [`--reflink=${shared ? "auto" : "never"}`, "--sparse=auto", "--no-dereference"];
  await runTool("cp", [...how, "--", ...files, into], { signal });
}

/** Moves a file; copies it if the place is on another file system. */
export async function moveFile(file: string, to: string, signal: AbortSignal | undefined): Promise<void> {
  try {
    renameSync(file, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw error;
    await copyFiles([file], to, { signal });
  }
}

interface BlobOptions {
  digest?: string | undefined;
  /** True: the file itself becomes the blob. */
  moves?: boolean;
  /** Gets the content in pieces, in order. */
  look?: ((piece: Buffer) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** Keeps a copy of a file and returns its digest; replaces a damaged blob. Throws `damaged` if the given digest differs. */
export async function addBlob(
  root: string,
  file: string,
  { digest, moves = false, look, signal }: BlobOptions = {},
): Promise<string> {
  // Opening another kind of file would wait, or copy nothing.
  closeSync(openRegular(file, { named: digest === undefined && !moves }));
  const fill = async (copy: string): Promise<void> =>
    moves ? moveFile(file, copy, signal) : copyFiles([file], copy, { signal });
  return await keep(root, { digest, look, signal }, fill);
}

/** The volume descriptors of ISO 9660 and UDF begin here, with a name in the second byte. */
const DESCRIPTORS = 32 << 10;

/** Keeps an image of a CD or DVD and returns its digest. Throws `usage` for another file. */
export async function addDisc(root: string, file: string, signal: AbortSignal | undefined): Promise<string> {
  const name = startOf(file, DESCRIPTORS + 6).toString("latin1", DESCRIPTORS + 1);
  if (name === "CD001" || name === "BEA01") return await addBlob(root, file, { signal });
  throw new CairnError("usage", `${printablePath(file)} is not an image of a CD or DVD (ISO 9660 or UDF)`, {
    hint: advice`use it as a disk: ${option("images", "--image FILE")}`,
  });
}

/**
 * Keeps a disk image (qcow2, raw, VMDK or VHDX) as qcow2 and returns its digest. `sha256`: the digest that the file must
 * have. Throws `usage` for another file, `refused` for an image that needs other files, `damaged` for another digest.
 */
export async function addImage(
  root: string,
  image: string,
  { sha256, signal }: { sha256?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<string> {
  // Another kind of file would be copied empty, or without an end.
  closeSync(openRegular(image, { named: true }));
  if (sha256 === undefined) return await convert(root, image, image, signal);
  const copy = blobFile(root, temporaryName());
  try {
    // The digest is of the bytes that are converted, also if somebody writes to the image meanwhile.
    await copyFiles([image], copy, { signal });
    const actual = (await digestOfFile(copy, newPacer(signal))).sha256;
    if (actual !== sha256.toLowerCase())
      throw new CairnError("damaged", `${printablePath(image)} has the SHA-256 ${actual}, and ${sha256} is expected`);
    return await convert(root, copy, image, signal);
  } finally {
    rmSync(copy, { force: true });
  }
}

/** Keeps an image's bytes as qcow2. `named`: the image's path as the user knows it. */
async function convert(root: string, image: string, named: string, signal: AbortSignal | undefined): Promise<string> {
  // QEMU opens no second file, also if the header names one that the check did not see.
  const source = { driver: formOf(image, named), file: { driver: "file", filename: image } };
  const whole = source.driver === "raw" ? source : { ...source, backing: null };
  const args = ["convert", "-O", "qcow2", `json:${JSON.stringify(whole)}`];
  return await keep(root, { signal }, async (copy) => runTool(programOf("qemu-img"), [...args, copy], { signal }));
}

/** First bytes of files that would be mistaken for a raw disk. */
const OTHERS: readonly (readonly [magic: string, name: string])[] = [
  ["COWD", "an ESX VMDK image"],
  ["# Disk DescriptorFile", "a VMDK descriptor, whose content is in other files"],
  ["<<< ", "a VDI image"],
  ["conectix", "a VHD image"],
  ["QED\0", "a QED image"],
  ["\x1f\x8b", "a gzip file"],
  ["\xfd7zXZ\0", "an xz file"],
  ["\x28\xb5\x2f\xfd", "a zstd file"],
  ["BZh", "a bzip2 file"],
  ["PK\x03\x04", "a zip file"],
];

/** Returns QEMU's name of an image's format. Throws `usage` for a file that is no image or of another format, `refused` for one that needs another file. */
function formOf(image: string, named: string): "qcow2" | "vmdk" | "vhdx" | "raw" {
  const start = startOf(image, VMDK_START);
  const header = headerIn(start);
  if (header !== null) {
    refuseOthers(header, named);
    return "qcow2";
  }
  const text = start.toString("latin1");
  if (text.startsWith("vhdxfile")) return "vhdx";
  if (text.startsWith("KDMV")) {
    // An image without sectors of its own names other files; a parent is another file too. QEMU takes these words at any place.
    const parents = [...text.matchAll(/parentCID\s*=\s*(\w*)/gi)].map(([, parent]) => parent!.toLowerCase());
    const isAlone = !/parentFileNameHint/i.test(text) && parents.every((parent) => parent === "ffffffff");
    if (isAlone && start.readBigUInt64LE(12) !== 0n) return "vmdk";
    throw new CairnError("refused", `${printablePath(named)} refers to another file, which QEMU would read`, {
      hint: STANDALONE,
    });
  }
  const other = OTHERS.find(([magic]) => text.startsWith(magic));
  if (other === undefined) return "raw";
  throw new CairnError(
    "usage",
    `${printablePath(named)} is ${other[1]}; a qcow2, raw, VMDK or VHDX image is expected`,
    {
      hint: "unpack a compressed image, or convert it: qemu-img convert -O qcow2 IMAGE NEW.qcow2",
    },
  );
}

/** A VMDK image has its descriptor in this many first bytes: QEMU reads 10 KiB from the second sector. */
const VMDK_START = 64 << 10;
const STANDALONE = "make a standalone image of it with qemu-img convert";

async function keep(
  root: string,
  { digest: wanted, look, signal }: BlobOptions,
  fill: (copy: string) => Promise<void>,
): Promise<string> {
  const copy = blobFile(root, temporaryName());
  try {
    await fill(copy);
    // Any later write sets another time, even within one tick of the clock.
    utimesSync(copy, 0, 0);
    // QEMU opens mapped files for writing, although it writes nothing.
    chmodSync(copy, 0o600);
    await using file = await open(copy);
    const [{ sha256 }] = await Promise.all([digestOfFile(copy, newPacer(signal), look), file.sync()]);
    if (wanted !== undefined && sha256 !== wanted)
      throw new CairnError("damaged", `a file with the digest ${wanted} has another content`);
    await publish(copy, { blob: blobFile(root, sha256), sha256, signal });
    fsyncDirectory(sharedFile(root, "blobs"));
    return sha256;
  } finally {
    rmSync(copy, { force: true });
  }
}

/** Gives a copy the name of its blob. A blob that has its content stays, since other commands may use it already. */
async function publish(
  copy: string,
  { blob, sha256, signal }: { blob: string; sha256: string; signal: AbortSignal | undefined },
): Promise<void> {
  if (!existsSync(blob)) {
    try {
      moveToFree(Buffer.from(copy), Buffer.from(blob));
      return;
    } catch (error) {
      if ((error as CairnError).details?.["errno"] !== "EEXIST") throw error;
    }
  }
  if ((await digestOfFile(blob, newPacer(signal))).sha256 !== sha256) renameSync(copy, blob);
}

/** Keeps new files from being removed until a machine's record names them. */
export async function shareBlobs(root: string, { signal, lockTimeoutMs }: OperationOptions): Promise<Lock> {
  const purpose = "vm files";
  return await acquireLock(sharedFile(root, "blobs.lock"), { shared: true, purpose, signal, timeoutMs: lockTimeoutMs });
}

/** Removes blobs that no machine of a folder needs, and temporary files, as `withUnused` finds them. */
export async function removeUnusedBlobs(root: string): Promise<void> {
  await withUnused(root, (places) => places.forEach(clearAway));
}

/**
 * Calls `work` with the paths of killed commands' temporary files and of blobs that no machine of a folder needs. While
 * another process adds files, does nothing. An unreadable machine keeps all blobs.
 */
export async function withUnused(root: string, work: (places: string[]) => void): Promise<void> {
  let lock: Lock;
  try {
    lock = await acquireLock(sharedFile(root, "blobs.lock"), { purpose: "vm files", timeoutMs: 0 });
  } catch (error) {
    if (error instanceof CairnError && error.code === "busy") return;
    throw error;
  }
  using _lock = lock;
  const temporary = [sharedFile(root, ""), sharedFile(root, "blobs")].flatMap(unfinishedIn);
  const used = new Set<string>();
  for (const machine of machinesIn(root)) {
    try {
      const { hardware, mapped } = machine.read();
      for (const each of [...blobsOf(hardware), ...(mapped === null ? [] : [mapped])]) used.add(each);
    } catch {
      // The blobs that an unreadable machine needs are not known.
      return work(temporary);
    }
  }
  const blobs = readdirSync(sharedFile(root, "blobs")).filter((name) => !used.has(name) && /^[0-9a-f]{64}$/.test(name));
  work([...temporary, ...blobs.map((name) => blobFile(root, name))]);
}

interface DiskHeader {
  size: number;
  /** Offset of the base image's name; 0: it has no base. */
  backing: bigint;
  isEncrypted: boolean;
  features: bigint;
}

const MAGIC = 0x51_46_49_fb;
/** Feature of an image whose content is in another file. */
const EXTERNAL_DATA = 4n;
const KNOWN_FEATURES = 0b11111n;

/** The first bytes of a file, filled up with zeros. Throws as `openRegular` does. */
function startOf(file: string, length: number): Buffer {
  const fd = openRegular(file);
  try {
    const bytes = Buffer.alloc(length);
    readSync(fd, bytes, 0, length, 0);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

/** The header of a qcow2 image in the first bytes of a file; null for any other file. */
function headerIn(bytes: Buffer): DiskHeader | null {
  if (bytes.readUInt32BE(0) !== MAGIC) return null;
  return {
    backing: bytes.readBigUInt64BE(8),
    size: Number(bytes.readBigUInt64BE(24)),
    isEncrypted: bytes.readUInt32BE(32) !== 0,
    features: bytes.readUInt32BE(4) < 3 ? 0n : bytes.readBigUInt64BE(72),
  };
}

const readHeader = (file: string): DiskHeader | null => headerIn(startOf(file, 104));

/** Throws `refused` for an image that needs another file, is encrypted, or has unknown features. */
function refuseOthers({ backing, isEncrypted, features }: DiskHeader, file: string): void {
  const why =
    backing !== 0n || (features & EXTERNAL_DATA) !== 0n
      ? "refers to another file, which QEMU would read"
      : isEncrypted
        ? "is encrypted"
        : (features & ~KNOWN_FEATURES) !== 0n
          ? "has features that Cairn does not know"
          : null;
  if (why === null) return;
  throw new CairnError("refused", `${printablePath(file)} ${why}`, {
    hint: STANDALONE,
  });
}

/** Size in bytes of a kept image's virtual disk. */
export function imageSize(root: string, digest: string): number {
  return readHeader(blobFile(root, digest))!.size;
}

/** Makes an overlay, or an independent disk, whose header names no other file. */
export async function newDisk(folder: string, index: number, size: number): Promise<void> {
  await runTool(programOf("qemu-img"), ["create", "-q", "-f", "qcow2", join(folder, diskFile(index)), String(size)]);
}

/** Returns the size in bytes of a machine's disk. Throws as `checkImage` does. */
export const diskSize = (folder: string, index: number): number => checkImage(join(folder, diskFile(index))).size;

/** Makes a disk as large as `size`; it does not shrink. */
export async function growDisk(folder: string, index: number, size: number): Promise<void> {
  const file = join(folder, diskFile(index));
  if (diskSize(folder, index) < size)
    await runTool(programOf("qemu-img"), ["resize", "-q", "-f", "qcow2", file, String(size)]);
}

/** Checks an image from elsewhere and returns its header. Throws `damaged` if it is no image, `refused` if it names another file. */
export function checkImage(file: string): DiskHeader {
  if (lstatSync(file, { throwIfNoEntry: false }) === undefined)
    throw new CairnError("damaged", `${printablePath(file)} is missing`);
  const header = readHeader(file);
  if (header === null) throw new CairnError("damaged", `${printablePath(file)} is not a qcow2 image`);
  refuseOthers(header, file);
  return header;
}

/** Throws as `checkImage` does, and `damaged` for a disk of another size. */
export function checkDisk(file: string, wanted: number): void {
  const { size } = checkImage(file);
  if (size !== wanted)
    throw new CairnError("damaged", `${printablePath(file)} is a disk of ${size} bytes; recorded are ${wanted}`);
}
