import { bindNative, newArena } from "../native.ts";

const [AF_UNIX, SOCK_DGRAM_CLOEXEC] = [1, 2 | 0o2000000];
const PATH_AT = 2;

/** Tells systemd how the daemon is, as sd_notify(3) does; nothing where nobody asked. */
export function notify(state: string, env = process.env): void {
  const path = env["NOTIFY_SOCKET"];
  if (path === undefined || path === "") return;
  const [socket, sendto, close] = [
    bindNative("int socket(int domain, int type, int protocol)"),
    bindNative("int64_t sendto(int fd, uint64_t bytes, uint64_t length, int flags, uint64_t address, uint32_t size)"),
    bindNative("int close(int fd)"),
  ];
  if (socket === null || sendto === null || close === null) return;
  const name = Buffer.from(path.startsWith("@") ? `\0${path.slice(1)}` : path);
  const address = newArena(PATH_AT + 108);
  if (name.length > 107) return;
  new Uint16Array(address.bytes.buffer, address.bytes.byteOffset, 1)[0] = AF_UNIX;
  address.bytes.set(name, PATH_AT);
  const text = Buffer.from(state);
  const message = newArena(text.length);
  message.bytes.set(text);
  const fd = socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) return;
  sendto(fd, message.address, text.length, 0, address.address, PATH_AT + name.length);
  close(fd);
}
