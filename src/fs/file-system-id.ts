import { closeSync, constants, openSync } from "node:fs";
import { type NativeFunction, bindNative, nativeAvailable, newArena } from "../native.ts";
import { mountOf } from "./mounts.ts";

/** _IOR(0x15, 0, struct fsuuid2), Linux 6.9: u8 length, 16 bytes. */
const FS_IOC_GETFSUUID = 0x80111500;
const FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NONBLOCK;

let ioctl: NativeFunction | null | undefined;

/**
 * Tells a folder's file system from others, also after a reboot: its UUID where the kernel says it, else what is
 * mounted there. Null where there is no such folder.
 */
export function fileSystemId(folder: Buffer): string | null {
  let fd: number;
  try {
    fd = openSync(folder, FLAGS);
  } catch {
    return null;
  }
  try {
    const uuid = uuidOf(fd);
    if (uuid !== null) return uuid;
  } finally {
    closeSync(fd);
  }
  const mount = mountOf(folder);
  return mount === null ? null : `${mount.type} ${mount.source}`;
}

function uuidOf(fd: number): string | null {
  if (process.platform !== "linux" || !nativeAvailable()) return null;
  ioctl ??= bindNative("int ioctl(int fd, uint64_t request, uint64_t argument)");
  const answer = newArena(17);
  if (ioctl === null || ioctl(fd, FS_IOC_GETFSUUID, answer.address) < 0) return null;
  const uuid = answer.bytes.slice(1, 1 + Math.min(answer.bytes[0]!, 16));
  return uuid.every((byte) => byte === 0) ? null : Buffer.from(uuid).toString("hex");
}
