import { giveBackThreads, takeThreads } from "../threads.ts";

/** Has what waits to be written on a folder's file system written, without keeping this thread from anything else. */
export async function settleFileSystem(folder: Uint8Array): Promise<void> {
  const threads = takeThreads();
  try {
    // All of them: a thread that was never asked for anything keeps the process from ending.
    await Promise.all(threads.map(async (thread) => thread.ask({ kind: "clone-settle", folder } as const)));
  } finally {
    giveBackThreads(threads);
  }
}
