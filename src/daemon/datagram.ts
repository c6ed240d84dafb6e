import { bindNativeLater, newArena } from "../native.ts";

const [AF_UNIX, SOCK_DGRAM_CLOEXEC] = [1, 2 | 0o2000000];
const [DONTWAIT, NOSIGNAL] = [0x40, 0x4000];
const PATH_AT = 2;
const MAX_NAME = 107;

const socketCall = bindNativeLater("int socket(int domain, int type, int protocol)");
const sendCall = bindNativeLater(
  "int64_t sendto(int fd, uint64_t bytes, uint64_t length, int flags, uint64_t address, uint32_t size)",
);
const closeCall = bindNativeLater("int close(int fd)");

/**
 * Sends one message to a Unix socket, a path or `@name`. False if no process took the message. Without `waits` a full
 * socket is a failure at once.
 */
export function sendDatagram(path: string, bytes: Uint8Array, { waits = false } = {}): boolean {
  const [socket, sendto, close] = [socketCall(), sendCall(), closeCall()];
  const name = Buffer.from(path.startsWith("@") ? `\0${path.slice(1)}` : path);
  if (socket === null || sendto === null || close === null || name.length > MAX_NAME) return false;
  const address = newArena(PATH_AT + name.length + 1);
  new Uint16Array(address.bytes.buffer, address.bytes.byteOffset, 1)[0] = AF_UNIX;
  address.bytes.set(name, PATH_AT);
  const message = newArena(bytes.length);
  message.bytes.set(bytes);
  const fd = socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) return false;
  const sent = sendto(
    fd,
    message.address,
    bytes.length,
    waits ? NOSIGNAL : NOSIGNAL | DONTWAIT,
    address.address,
    PATH_AT + name.length,
  );
  close(fd);
  return Number(sent) === bytes.length;
}
