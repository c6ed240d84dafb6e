import { mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { runCommand } from "./measure.ts";

/** A fresh ext4 in a sparse file: creating files on one where many were just deleted is slow, which would punish whoever comes second. */
export class LoopVolume {
  readonly mountPoint: string;
  readonly #image: string;
  #mounted = false;

  constructor(folder: string) {
    mkdirSync(folder, { recursive: true });
    this.mountPoint = path.join(folder, "mnt");
    this.#image = path.join(folder, "volume.img");
  }

  /** Makes the file system anew and mounts it; needs root. */
  fresh(): void {
    this.close();
    mkdirSync(this.mountPoint, { recursive: true });
    runCommand({ program: "truncate", args: ["-s", "8G", this.#image] });
    const options = ["-q", "-F", "-m", "0", "-N", "600000", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    runCommand({ program: "/sbin/mkfs.ext4", args: [...options, this.#image] });
    runCommand({ program: "mount", args: ["-o", "loop", this.#image, this.mountPoint] });
    this.#mounted = true;
  }

  close(): void {
    if (this.#mounted) runCommand({ program: "umount", args: [this.mountPoint] });
    this.#mounted = false;
    rmSync(this.#image, { force: true });
  }
}
