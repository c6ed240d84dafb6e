import { spawn } from "node:child_process";
import { CairnError, throwIfAborted } from "../errors.ts";
import { withPipes } from "../fs/child-pipes.ts";
import { killGroup } from "../fs/shell-command.ts";

/**
 * Copies stdin to the command, and holds the command's input open until this process has said that the content is
 * whole. If this process ends without that, even by a kill, the whole group is killed, and the command never sees the
 * end of a part. Status 141 of `cat`: the command ended before it had read everything.
 */
const GUARD = `{
  { IFS= read -r word && [ "$word" = whole ] || kill -KILL 0; } <&3 &
  cat; end=$?
  [ $end = 141 ] && exit
  [ $end = 0 ] && wait $! || kill -KILL 0
} | sh -c "$1" 3<&-`;

/**
 * Runs a command with /bin/sh in its own session, and writes `content` to its stdin. Returns the number of bytes. If
 * `content` fails, the command is killed before its input ends. Throws `io` unless the command's status is 0.
 */
export async function feedCommand(
  command: string,
  content: AsyncIterable<Uint8Array>,
  { toStderr, signal }: { toStderr: boolean; signal?: AbortSignal | undefined },
): Promise<number> {
  throwIfAborted(signal);
  const child = withPipes(
    spawn("/bin/sh", ["-c", GUARD, "cairn", command], {
      detached: true,
      stdio: ["pipe", toStderr ? 2 : "inherit", "inherit", "pipe"],
    }),
    "/bin/sh",
  );
  const stdin = child.stdin!;
  const control = child.stdio[3] as typeof stdin;
  for (const pipe of [stdin, control]) pipe.on("error", () => undefined);
  let hasEnded = false;
  const ended = new Promise<string | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, killed) => {
      hasEnded = true;
      resolve(code === 0 ? null : code === null ? `was ended by ${killed}` : `ended with status ${code}`);
    });
  });
  const stop = (): void => killGroup(child.pid);
  signal?.addEventListener("abort", stop);
  let bytes = 0;
  try {
    for await (const piece of content) {
      if (hasEnded) break;
      bytes += piece.length;
      if (!stdin.write(piece)) await Promise.race([new Promise((drained) => stdin.once("drain", drained)), ended]);
    }
    if (!hasEnded) {
      // Only once every byte has left this process.
      stdin.end(() => control.end("whole\n"));
    }
    const failed = await ended;
    throwIfAborted(signal);
    if (failed !== null)
      throw new CairnError("io", `the command ${failed}`, { hint: "see its output on stderr, above" });
    return bytes;
  } finally {
    if (!hasEnded) stop();
    signal?.removeEventListener("abort", stop);
    stdin.destroy();
    control.destroy();
  }
}
