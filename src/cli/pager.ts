import { spawn } from "node:child_process";
import { withPipes } from "../fs/child-pipes.ts";

/**
 * Shows the text in `$PAGER` (else `less`) and waits for its end; `setRunning` is told its process id, then null. False when
 * there is none, or when it failed: print it instead, better twice than not at all.
 */
export async function showInPager(
  text: string,
  env: Record<string, string | undefined>,
  setRunning: (pid: number | null) => void,
): Promise<boolean> {
  const pager = env["PAGER"] ?? "less";
  if (pager.trim() === "" || pager.trim() === "cat") return false;
  try {
    // F: leave when it fits on one screen, R: colours, X: leave the text on the screen.
    const child = withPipes(
      spawn("/bin/sh", ["-c", `command -v -- ${firstWord(pager)} >/dev/null || exit 127; exec ${pager}`], {
        env: { LESS: "FRX", ...env },
        stdio: ["pipe", "inherit", "inherit"],
      }),
      pager,
    );
    // A reader that has seen enough leaves before all of it is sent.
    child.stdin.on("error", () => undefined);
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

function firstWord(command: string): string {
  return command.trim().split(/\s+/, 1)[0] ?? command;
}
