import { closeSync } from "node:fs";
import { runTool } from "./child-pipes.ts";
import { openDirectory } from "./linux/syscalls.ts";

/**
 * Copies a folder's entries by cp(1), with metadata, hard links and holes, and shares content if the file system can.
 * Holds both folders open, so that no link can redirect the copy. Throws `io` with the error text of cp.
 */
export async function copyInto(from: Buffer, to: Buffer, signal: AbortSignal | undefined): Promise<void> {
  const held = [from, to].map((place) => openDirectory(place));
  try {
    const [source, target] = held.map((fd) => `/proc/${process.pid}/fd/${fd}/`) as [string, string];
    await runTool("cp", ["-a", "--reflink=auto", "--", `${source}.`, target], { signal });
  } finally {
    for (const fd of held) closeSync(fd);
  }
}
