import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { runCommand } from "./measure.ts";

/** The programs that make each kind of file system. */
const MAKERS = {
  ext4: ["/sbin/mkfs.ext4", "-q", "-F", "-m", "0", "-N", "2400000", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
  btrfs: ["/sbin/mkfs.btrfs", "-q", "-f"],
  xfs: ["/sbin/mkfs.xfs", "-q", "-f"],
} as const;

export type VolumeKind = keyof typeof MAKERS;

/**
 * A fresh file system in a sparse file. On ext4 new files are slow where many files were just deleted, which would slow the
 * second program. Reads and writes of the sparse file are direct, so that no second page cache stands for a disk.
 */
export class LoopVolume {
  readonly mountPoint: string;
  readonly #image: string;
  readonly #kind: VolumeKind;
  readonly #size: string;
  #mounted = false;

  constructor(folder: string, kind: VolumeKind = "ext4", size = "8G") {
    this.#kind = kind;
    this.#size = size;
    mkdirSync(folder, { recursive: true });
    this.mountPoint = path.join(folder, "mnt");
    this.#image = path.join(folder, "volume.img");
  }

  /** Makes the file system anew and mounts it; needs root. */
  fresh(): void {
    this.close();
    mkdirSync(this.mountPoint, { recursive: true });
    runCommand({ program: "truncate", args: ["-s", this.#size, this.#image] });
    const [program, ...options] = MAKERS[this.#kind];
    runCommand({ program, args: [...options, this.#image] });
    const loop = runCommand({ program: "losetup", args: ["-f", "--show", "--direct-io=on", this.#image] }).trim();
    try {
      runCommand({ program: "mount", args: [loop, this.mountPoint] });
    } finally {
      // Takes place once it is no longer mounted.
      runCommand({ program: "losetup", args: ["-d", loop] });
    }
    this.#mounted = true;
    // Millions of names that the kernel remembers of earlier work make each new file twice as slow.
    writeFileSync("/proc/sys/vm/drop_caches", "2");
  }

  close(): void {
    if (this.#mounted) runCommand({ program: "umount", args: [this.mountPoint] });
    this.#mounted = false;
    rmSync(this.#image, { force: true });
  }
}
