import { arenaOver, bindNative, newArena } from "../../native.ts";

const POLLIN = 1;
const [EFD_CLOEXEC, EFD_NONBLOCK] = [0o2000000, 0o4000];

type Asynchronous = { async(...given: unknown[]): void };

/**
 * Calls `onReadable` when a descriptor that Node cannot watch has data, and waits again once the call has resolved.
 * Does not keep the process alive. Returns a function that stops the wait; it resolves when the descriptor may be
 * closed.
 */
export function waitReadable(fd: number, onReadable: () => Promise<void>): () => Promise<void> {
  const poll = bindNative("int poll(uint64_t fds, unsigned long count, int timeout)") as unknown as Asynchronous;
  const eventfd = bindNative("int eventfd(unsigned int value, int flags)")!;
  const write = bindNative("int64_t write(int fd, uint64_t bytes, uint64_t length)")!;
  const close = bindNative("int close(int fd)")!;
  const end = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const fds = newArena(16);
  const words = new Int32Array(fds.bytes.buffer, fds.bytes.byteOffset, 4);
  const { promise, resolve } = Promise.withResolvers<void>();
  let isStopped = false;
  const wait = (): void => {
    words.set([fd, POLLIN, end, POLLIN]);
    poll.async(fds.address, 2, -1, () => {
      if (!isStopped) return void onReadable().then(wait, wait);
      close(end);
      resolve();
    });
  };
  wait();
  return async () => {
    isStopped = true;
    const one = arenaOver(Buffer.from(BigUint64Array.of(1n).buffer));
    write(end, one.address, 8);
    const alive = setInterval(() => undefined, 1000);
    await promise;
    clearInterval(alive);
  };
}
