import { spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { LoopImage } from "../../formats/records/daemon-state.ts";
import { durableMkdir, fsyncDirectory } from "../../fs/durable.ts";
import { filesystemKind, freeSpace, mountOf } from "../../fs/linux/mounts.ts";
import { formatBytes } from "../../formats/sizes.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { DaemonConfig } from "../config.ts";

/**
 * A btrfs in a file of the state directory, for machines without btrfs. The image is made under another name,
 * formatted, flushed and renamed: the rename is the commit. A kill before the rename leaves a file that the next start
 * replaces.
 */

const IMAGE = "btrfs.img";
const UNFINISHED = "btrfs.img.unfinished";
/** The part of the free space that the image may take. */
const PART_OF_FREE = 0.8;
/** The smallest size that mkfs.btrfs accepts, with some room. */
const LEAST_BYTES = 256 << 20;
/** The size of a new image without `loop.size`. */
const DEFAULT_BYTES = 30 * 2 ** 30;

/** Paths of the image and its mount: in the state directory, or those of an image that ws-ckpt made. */
export function loopPlaces(state: string, known: LoopImage | null = null): { image: string; mount: string } {
  if (known?.mount !== undefined) return { image: known.path, mount: known.mount };
  return { image: join(state, IMAGE), mount: join(state, "btrfs") };
}

/**
 * Mounts the image, and makes it if none is known. Grows Cairn's own image up to the configured `size`; never shrinks
 * an image. Throws `no_space`, and `unsupported` that names the obstacle.
 */
export function mountImage(state: string, known: LoopImage | null, { loop }: Pick<DaemonConfig, "loop">): LoopImage {
  const { image, mount } = loopPlaces(state, known);
  durableMkdir(mount, { mode: 0o755 });
  const disk = freeSpace(state);
  const has = statSync(image, { throwIfNoEntry: false })?.size ?? 0;
  const most = Math.min(loop.bytes ?? (has > 0 ? has : DEFAULT_BYTES), (disk.totalBytes * loop.percent_of_disk) / 100);
  // The image takes all its space at once, so the disk always has the space that the image promises.
  const wanted = Math.floor(Math.min(most, has + disk.freeBytes * PART_OF_FREE) / 4096) * 4096;
  if (known === null && !existsSync(image)) makeImage(state, wanted);
  const mounted = mountOf(mount);
  let device = mounted?.mountPoint.toString("utf8") === mount ? mounted.source : null;
  if (device !== null && backingFile(device) !== image)
    throw new CairnError("unsupported", `${mount} is already a mount of ${device}, not of ${printablePath(image)}`, {
      hint: "unmount it, and start the daemon again",
    });
  device ??= attach(image, mount);
  const bytes = statSync(image).size;
  // The maker of an adopted image chose its size.
  if (known?.mount !== undefined) return { ...known, bytes, last_device: device };
  if (bytes >= wanted && bytes === (known?.bytes ?? bytes)) return { path: image, bytes, last_device: device };
  grow(image, { device, mount, bytes: Math.max(bytes, wanted) });
  return { path: image, bytes: Math.max(bytes, wanted), last_device: device };
}

function makeImage(state: string, bytes: number): void {
  const [unfinished, image] = [join(state, UNFINISHED), join(state, IMAGE)];
  if (bytes < LEAST_BYTES)
    throw new CairnError(
      "no_space",
      `an image of ${bytes} bytes is too small for btrfs, and loop.size and loop.percent_of_disk allow no more`,
    );
  rmSync(unfinished, { force: true });
  const fd = openSync(unfinished, "wx", 0o600);
  closeSync(fd);
  allocate(unfinished, bytes);
  failpoint("daemon-loop.allocated");
  run("mkfs.btrfs", ["-q", "--nodiscard", unfinished]);
  const made = openRegular(unfinished, { flags: constants.O_RDWR });
  fsyncSync(made);
  closeSync(made);
  failpoint("daemon-loop.formatted");
  renameSync(unfinished, image);
  fsyncDirectory(state);
  failpoint("daemon-loop.named");
}

/** Mounts an image through a loop device that ends with the unmount. Bypasses the page cache if the file system can. */
function attach(image: string, mount: string): string {
  const known = run("losetup", ["--noheadings", "--output", "NAME", "--associated", image])
    .trim()
    .split("\n")[0]!
    .trim();
  const device = known === "" ? run("losetup", ["--find", "--show", image]).trim() : known;
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
  if (filesystemKind(mount).name !== "btrfs")
    throw new CairnError("unsupported", `${printablePath(image)} was mounted at ${mount} and is not btrfs`);
  return device;
}

/** Allocates a file's space on the disk. Removes the file if that fails. */
function allocate(file: string, bytes: number): void {
  try {
    run("fallocate", ["--length", String(bytes), file]);
  } catch (error) {
    rmSync(file, { force: true });
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
