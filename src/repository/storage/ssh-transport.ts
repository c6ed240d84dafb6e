import { spawn } from "node:child_process";
import { Socket } from "node:net";
import { Duplex } from "node:stream";
import { withPipes } from "../../fs/child-pipes.ts";

/** What an SSH connection reads and writes: a port of its host, or another way to it. */
export interface SshTransport {
  readonly stream: Duplex;
  /** To be called before it is read: connects, where that is still to be done. */
  begin?(): void;
  /** What the other way has said of itself, for people; empty mostly. */
  said(): string;
  /** Whether it keeps the process alive. */
  ref(): void;
  unref(): void;
  /** Ends it at once, with all that it was made of. */
  destroy(): void;
}

export function portOf(host: string, port: number): SshTransport {
  const socket = new Socket();
  socket.setNoDelay(true);
  socket.setKeepAlive(true, 30_000);
  return {
    stream: socket,
    said: () => "",
    begin: () => void socket.connect({ host, port }),
    ref: () => void socket.ref(),
    unref: () => void socket.unref(),
    destroy: () => void socket.destroy(),
  };
}

const MOST_SAID = 1000;
/** Within which a command's last words come after its output's end, where what it leaves behind holds that stream open. */
const LAST_WORDS_MS = 200;

/** What a shell's command reads and writes. The command is `ProxyCommand`'s: the user's own. Throws `io` when it cannot be started. */
export function commandTo(command: string): SshTransport {
  // As OpenSSH does it: the shell is not to stay between.
  const child = withPipes(
    spawn("/bin/sh", ["-c", `exec ${command}`], { stdio: ["pipe", "pipe", "pipe"] }),
    "the ProxyCommand",
  );
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-MOST_SAID)));
  const stream = new Duplex({
    allowHalfOpen: false,
    read: () => void child.stdout.resume(),
    // One that ended takes nothing any more; its last words come with its end.
    write: (chunk: Uint8Array, _encoding, done) => void child.stdin.write(chunk, () => done()),
    final: (done) => void child.stdin.end(() => done()),
  });
  child.stdin.on("error", () => undefined);
  child.stdout.on("data", (chunk: Buffer) => {
    if (!stream.push(chunk)) child.stdout.pause();
  });
  child.on("error", (error) => stream.destroy(error));
  const end = (): void => void stream.push(null);
  child.stdout.on("end", () => setTimeout(end, LAST_WORDS_MS));
  child.on("close", end);
  const pipes = [child.stdin, child.stdout, child.stderr] as unknown as Socket[];
  return {
    stream,
    said: () => said.trim(),
    ref: () => {
      for (const each of [child, ...pipes]) each.ref();
    },
    unref: () => {
      for (const each of [child, ...pipes]) each.unref();
    },
    destroy: () => {
      stream.destroy();
      for (const pipe of pipes) pipe.destroy();
      child.kill();
    },
  };
}
