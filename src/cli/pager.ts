import { spawn, spawnSync } from "node:child_process";
import { withPipes } from "../fs/child-pipes.ts";

/**
 * Shows the text in the pager and waits for its end. Calls `setRunning` with the pager's process id, then with null.
 * False if there is no pager or it failed: the caller prints the text then, perhaps a second time.
 */
export async function showInPager(
  text: string,
  env: Record<string, string | undefined>,
  setRunning: (pid: number | null) => void,
): Promise<boolean> {
  const pager = pagerOf(env);
  if (pager === null) return false;
  try {
    const child = start(pager, env);
    const ended = Promise.withResolvers<boolean>();
    child.on("error", ended.reject);
    child.on("close", (code) => ended.resolve(code === 0));
    setRunning(child.pid ?? null);
    child.stdin.end(text);
    return await ended.promise;
  } catch {
    return false;
  } finally {
    setRunning(null);
  }
}

/**
 * Shows content in a pager piece by piece, no faster than it is read. False if there is no pager: no content was read
 * then. Throws an error of `content` if the reader has left.
 */
export async function streamInPager(
  content: AsyncIterable<Uint8Array>,
  env: Record<string, string | undefined>,
  setRunning: (pid: number | null) => void,
): Promise<boolean> {
  const pager = pagerOf(env);
  if (pager === null || !isThere(pager, env)) return false;
  let child: ReturnType<typeof start>;
  try {
    child = start(pager, env);
  } catch {
    return false;
  }
  let hasLeft = false;
  const ended = new Promise<void>((resolve) => child.on("error", resolve).on("close", resolve)).then(() => {
    hasLeft = true;
  });
  setRunning(child.pid ?? null);
  try {
    for await (const piece of content) {
      if (hasLeft) break;
      if (child.stdin.write(piece)) continue;
      await Promise.race([ended, new Promise((resolve) => child.stdin.once("drain", resolve))]);
    }
  } finally {
    child.stdin.end();
    await ended;
    setRunning(null);
  }
  return true;
}

/** Returns `$CAIRN_PAGER`, else `$PAGER`, else less; null if no pager is wanted, or the terminal can only print. */
function pagerOf(env: Record<string, string | undefined>): string | null {
  const pager = env["CAIRN_PAGER"] ?? env["PAGER"] ?? "less";
  const isWanted = pager.trim() !== "" && pager.trim() !== "cat" && env["TERM"] !== "dumb";
  return isWanted ? pager : null;
}

function start(pager: string, env: Record<string, string | undefined>) {
  const child = withPipes(
    spawn("/bin/sh", ["-c", `${lookFor(pager)} || exit 127; exec ${pager}`], {
      // F: end if the text fits on one screen, R: colours, X: leave the text on the screen.
      env: { LESS: "FRX", ...env },
      stdio: ["pipe", "inherit", "inherit"],
    }),
    pager,
  );
  // A reader may quit before all content is sent.
  child.stdin.on("error", () => undefined);
  return child;
}

function isThere(pager: string, env: Record<string, string | undefined>): boolean {
  return spawnSync("/bin/sh", ["-c", lookFor(pager)], { env, stdio: "ignore" }).status === 0;
}

function lookFor(pager: string): string {
  return `command -v -- ${firstWord(pager)} >/dev/null`;
}

function firstWord(command: string): string {
  return command.trim().split(/\s+/, 1)[0] ?? command;
}
