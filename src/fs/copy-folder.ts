import { closeSync } from "node:fs";
import { runTool } from "./child-pipes.ts";
import { openDirectory } from "./linux/syscalls.ts";

/** Copies all that is in a folder by cp(1), with metadata, hard links and holes, sharing content where the file system can; both are held, so that nobody leads the copy elsewhere by a link. Throws `io` with what cp said. */
export async function copyInto(from: Buffer, to: Buffer, signal: AbortSignal | undefined): Promise<void> {
  const held = [from, to].map((place) => openDirectory(place));
  try {
    const [source, target] = held.map((fd) => `/proc/${process.pid}/fd/${fd}/`) as [string, string];
    await runTool("cp", ["-a", "--reflink=auto", "--", `${source}.`, target], { signal });
  } finally {
    for (const fd of held) closeSync(fd);
  }
}
