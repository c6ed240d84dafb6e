import { spawn } from "node:child_process";

/** Shows the text in `$PAGER` (else `less`) and waits for its end. False when there is none: print it instead. */
export function showInPager(text: string, env: Record<string, string | undefined>): Promise<boolean> {
  const pager = env["PAGER"] ?? "less";
  if (pager.trim() === "" || pager.trim() === "cat") return Promise.resolve(false);
  return new Promise((done) => {
    // F: leave when it fits on one screen, R: colours, X: leave the text on the screen.
    const child = spawn("/bin/sh", ["-c", `command -v -- ${firstWord(pager)} >/dev/null || exit 127; exec ${pager}`], {
      env: { LESS: "FRX", ...env },
      stdio: ["pipe", "inherit", "inherit"],
    });
    child.stdin.on("error", () => undefined);
    child.on("error", () => done(false));
    child.on("close", (code) => done(code !== 127));
    child.stdin.end(text);
  });
}

function firstWord(command: string): string {
  return command.trim().split(/\s+/, 1)[0] ?? command;
}
