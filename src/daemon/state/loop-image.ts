import { spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename, delimiter, dirname, join } from "node:path";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { LoopImage } from "../../formats/records/daemon-state.ts";
import { durableMkdir, fsyncDirectory } from "../../fs/durable.ts";
import { freeSpace, type FreeSpace, mountOf } from "../../fs/linux/mounts.ts";
import { formatBytes } from "../../formats/sizes.ts";
import { openRegular } from "../../fs/regular-file.ts";
import type { DaemonConfig } from "../config.ts";

/**
 * A btrfs in a file of the state directory, for machines without btrfs. A new image is allocated, formatted and mounted
 * under another name. The daemon's state, which names the image's UUID, is the commit; the rename follows it. A kill
 * before the commit leaves a file that the next start removes; a kill after it leaves an image that the next start names.
 */

const IMAGE = "btrfs.img";
const UNFINISHED = "btrfs.img.unfinished";
/** The part of the free space that the image may take. */
const PART_OF_FREE = 0.8;
/** The smallest size that mkfs.btrfs accepts, with some room. */
export const LEAST_IMAGE_BYTES = 256 << 20;
/** The size of a new image without `loop.size`. */
const DEFAULT_BYTES = 30 * 2 ** 30;
/** Programs of the system that make and mount an image. */
const PROGRAMS = ["mkfs.btrfs", "btrfs", "losetup", "fallocate", "mount", "umount"];

/** Paths of the image and its mount: in the state directory, or those of an image that ws-ckpt made. */
export function loopPlaces(state: string, known: LoopImage | null = null): { image: string; mount: string } {
  if (known?.mount !== undefined) return { image: known.path, mount: known.mount };
  return { image: join(state, IMAGE), mount: join(state, "btrfs") };
}

/** The path of an image that is being made. */
export function unfinishedImage(state: string): string {
  return join(state, UNFINISHED);
}

/** The size that the settings and the disk allow for an image that has `has` bytes now. */
export function imageBytes({ loop }: Pick<DaemonConfig, "loop">, disk: FreeSpace, has: number): number {
  const most = Math.min(loop.bytes ?? (has > 0 ? has : DEFAULT_BYTES), (disk.totalBytes * loop.percent_of_disk) / 100);
  // The image takes all its space at once, so the disk always has the space that the image promises.
  return Math.floor(Math.min(most, has + disk.freeBytes * PART_OF_FREE) / 4096) * 4096;
}

/** The superblock of btrfs: its place in the device, and the places of its parts. */
const SUPERBLOCK = { at: 64 << 10, fsid: 0x20, magic: 0x40, length: 0x48 };

/** The UUID of the btrfs in a file, by its superblock; null if the file has none, or cannot be read. Mounts nothing. */
export function btrfsInFile(file: string): string | null {
  const { at, fsid, magic, length } = SUPERBLOCK;
  const bytes = Buffer.alloc(length);
  try {
    const descriptor = openRegular(file, { named: true });
    try {
      if (readSync(descriptor, bytes, 0, length, at) < length) return null;
    } finally {
      closeSync(descriptor);
    }
  } catch {
    return null;
  }
  if (bytes.toString("latin1", magic) !== "_BHRfS_M") return null;
  const hex = bytes.toString("hex", fsid, fsid + 16);
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/**
 * Mounts an image. Grows Cairn's own image up to the configured `size`; never shrinks an image. Throws `no_space`, and
 * `unsupported` that names the obstacle.
 */
export function mountImage(state: string, known: LoopImage | null, config: Pick<DaemonConfig, "loop">): LoopImage {
  const { image, mount } = loopPlaces(state, known);
  durableMkdir(mount, { mode: 0o755 });
  const device = deviceAt(mount) ?? attach(image, mount);
  const bytes = statSync(image).size;
  // The maker of an image that was taken up chose its size.
  if (known?.mount !== undefined) return { ...known, bytes, last_device: device };
  const wanted = imageBytes(config, freeSpace(state), bytes);
  if (bytes >= wanted && bytes === (known?.bytes ?? bytes)) return { path: image, bytes, last_device: device };
  grow(image, { device, mount, bytes: Math.max(bytes, wanted) });
  return { path: image, bytes: Math.max(bytes, wanted), last_device: device };
}

/**
 * Allocates, formats and mounts a new image under its unfinished name. If that fails, nothing of it stays. The caller
 * saves the state and then calls `nameImage()`.
 */
export function makeImage(state: string, bytes: number): { image: LoopImage; uuid: string } {
  const { image: path, mount } = loopPlaces(state);
  const unfinished = unfinishedImage(state);
  const uuid = randomUUID();
  const isNew = durableMkdir(mount, { mode: 0o755 });
  try {
    closeSync(openSync(unfinished, "wx", 0o600));
    allocate(unfinished, bytes);
    failpoint("daemon-loop.allocated");
    run("mkfs.btrfs", ["-q", "--nodiscard", "--uuid", uuid, unfinished]);
    const made = openRegular(unfinished, { flags: constants.O_RDWR });
    fsyncSync(made);
    closeSync(made);
    fsyncDirectory(state);
    failpoint("daemon-loop.formatted");
    const device = attach(unfinished, mount);
    return { image: { path, bytes, last_device: device }, uuid };
  } catch (error) {
    removeUnfinished(state);
    if (isNew) rmdirSync(mount);
    throw error;
  }
}

/** Gives a new image its name, once the state names it. */
export function nameImage(state: string): void {
  renameSync(unfinishedImage(state), loopPlaces(state).image);
  fsyncDirectory(state);
  failpoint("daemon-loop.named");
}

/** Removes an image that a killed start began to make and that no state names. */
export function removeUnfinished(state: string): void {
  const [unfinished, { mount }] = [unfinishedImage(state), loopPlaces(state)];
  if (!existsSync(unfinished)) return;
  const mounted = deviceAt(mount);
  if (mounted !== null && backingFile(mounted) === unfinished) run("umount", [mount]);
  for (const device of devicesOf(unfinished)) run("losetup", ["--detach", device]);
  rmSync(unfinished, { force: true });
}

/** Mounts an image through a loop device that ends with the unmount. Bypasses the page cache if the file system can. */
function attach(image: string, mount: string): string {
  const device = devicesOf(image)[0] ?? run("losetup", ["--find", "--show", image]).trim();
  // Not every file system supports direct I/O; without it the page cache has the data twice.
  spawnSync("losetup", ["--direct-io=on", device], { env: withSbin() });
  failpoint("daemon-loop.attached");
  try {
    run("mount", ["-t", "btrfs", "-o", "nodiscard", device, mount]);
  } finally {
    // The device ends with its last mount from now on, or at once if there is no mount.
    run("losetup", ["--detach", device]);
  }
  if (!isSeenByHost(mount)) {
    run("umount", [mount]);
    throw new CairnError(
      "unsupported",
      `${mount} would be mounted only for this process, which has a mount namespace of its own`,
      {
        hint: "run the daemon without settings that give it a mount namespace, such as PrivateTmp= or ProtectSystem= in a unit",
      },
    );
  }
  return device;
}

/** Loop devices of an image. */
function devicesOf(image: string): string[] {
  const listed = run("losetup", ["--noheadings", "--output", "NAME", "--associated", image]);
  return listed.split("\n").flatMap((line) => (line.trim() === "" ? [] : [line.trim()]));
}

/** Allocates a file's space on the disk. */
function allocate(file: string, bytes: number): void {
  try {
    run("fallocate", ["--length", String(bytes), file]);
  } catch (error) {
    throw new CairnError(
      "no_space",
      `there is no room for an image of ${formatBytes(bytes)}: ${(error as Error).message}`,
      {
        hint: "make the image smaller: loop.size, loop.percent_of_disk",
        cause: error,
      },
    );
  }
}

function grow(image: string, { device, mount, bytes }: { device: string; mount: string; bytes: number }): void {
  // An image that cannot grow keeps its size.
  if (statSync(image).size < bytes) run("fallocate", ["--length", String(bytes), image]);
  failpoint("daemon-loop.grown");
  run("losetup", ["--set-capacity", device]);
  run("btrfs", ["filesystem", "resize", "max", mount]);
}

/** True if process 1 has the mount too, or if its mounts cannot be read. */
function isSeenByHost(mount: string): boolean {
  try {
    return readFileSync(`/proc/1/mountinfo`, "utf8").includes(` ${mount} `);
  } catch {
    return true;
  }
}

/** The device that is mounted at exactly this folder; null if none is. */
export function deviceAt(mount: string): string | null {
  const at = existsSync(mount) ? mountOf(mount) : null;
  return at?.mountPoint.toString("utf8") === mount ? at.source : null;
}

/** The file behind a loop device; null for other devices. */
export function backingFile(device: string): string | null {
  try {
    return readFileSync(`/sys/block/${basename(device)}/loop/backing_file`, "utf8").trimEnd();
  } catch {
    return null;
  }
}

function withSbin(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`, LC_ALL: "C" };
}

/** Programs for an image that this system lacks. */
export function missingPrograms(): string[] {
  const folders = withSbin()["PATH"]!.split(delimiter);
  return PROGRAMS.filter((program) => !folders.some((folder) => existsSync(join(folder, program))));
}

/** Returns the output of a program of the system. Throws `unsupported` with the program's error text. */
export function run(program: string, args: readonly string[]): string {
  const done = spawnSync(program, args, { env: withSbin(), encoding: "utf8", maxBuffer: 64 << 20 });
  if (done.status === 0) return done.stdout;
  const missing = (done.error as NodeJS.ErrnoException | undefined)?.code === "ENOENT";
  throw new CairnError(
    "unsupported",
    `${program}: ${missing ? "it is not installed" : done.stderr.trim() || String(done.error)}`,
    {
      hint: missing ? "btrfs-loop needs btrfs-progs and util-linux" : `it was called for ${dirname(args.at(-1) ?? "")}`,
    },
  );
}
