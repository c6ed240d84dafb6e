import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync } from "node:fs";
import { CairnError, throwIfAborted } from "../errors.ts";
import { openDirectory } from "./linux/syscalls.ts";

/** Copies all that is in a folder by cp(1), with metadata, hard links and holes, sharing content where the file system can; both are held, so that nobody leads the copy elsewhere by a link. Throws `io` with what cp said. */
export async function copyInto(from: Buffer, to: Buffer, signal: AbortSignal | undefined): Promise<void> {
  const held = [from, to].map((place) => openDirectory(place));
  try {
    const [source, target] = held.map((fd) => `/proc/${process.pid}/fd/${fd}/`) as [string, string];
    const child = spawn("cp", ["-a", "--reflink=auto", "--", `${source}.`, target], {
      env: { ...process.env, LC_ALL: "C" },
      stdio: ["ignore", "ignore", "pipe"],
      ...(signal === undefined ? {} : { signal }),
    });
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(0, 4000)));
    const [status] = (await once(child, "close")) as [number | null];
    throwIfAborted(signal);
    if (status !== 0)
      throw new CairnError(/No space left|quota exceeded/i.test(said) ? "no_space" : "io", `cp: ${said.trim()}`);
  } catch (error) {
    throwIfAborted(signal);
    throw error;
  } finally {
    for (const fd of held) closeSync(fd);
  }
}
