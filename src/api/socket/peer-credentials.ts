import type { Socket } from "node:net";
import { endianness } from "node:os";
import { CairnError } from "../../errors.ts";
import { bindNative, lastErrno, newArena, type NativeFunction } from "../../native.ts";
import type { Peer } from "../../daemon/state/peer.ts";

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const BYTES = 12;

let getsockopt: NativeFunction | null | undefined;

/**
 * Returns the process that connected, as the kernel recorded it then: unix(7), SO_PEERCRED. Throws `permission` if the
 * kernel does not report it.
 */
export function peerOf(socket: Socket): Peer {
  const { fd = -1 } = (socket as unknown as { _handle?: { fd?: number } | null })._handle ?? {};
  getsockopt ??= bindNative("int getsockopt(int fd, int level, int name, uint64_t value, uint64_t length)");
  const value = newArena(BYTES + 4);
  const view = new DataView(value.bytes.buffer, value.bytes.byteOffset, value.bytes.byteLength);
  const isLittle = endianness() === "LE";
  view.setUint32(BYTES, BYTES, isLittle);
  if (
    fd < 0 ||
    getsockopt === null ||
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value.address, value.address + BYTES) !== 0
  )
    throw new CairnError("permission", `the kernel does not tell who connected (${fd < 0 ? "closed" : lastErrno()})`);
  const [pid, uid, gid] = [0, 4, 8].map((at) => view.getUint32(at, isLittle)) as [number, number, number];
  return { pid, uid, gid };
}
