import { type GivenPassword, type PasswordSources, readPassword } from "../keep/password.ts";
import { readHiddenLine } from "./hidden-line.ts";

/** Reads a repository's password as a scheduled run does, and asks on the terminal if there is no other source. */
export async function askPassword(sources: PasswordSources): Promise<GivenPassword> {
  return readPassword(process.stdin.isTTY && process.stderr.isTTY ? { ...sources, ask } : sources);
}

/** Shows the question, but not the typed text. */
async function ask(question: string, signal: AbortSignal | undefined): Promise<Buffer> {
  process.stderr.write(question);
  try {
    return Buffer.from(await readHiddenLine(process.stdin, signal));
  } finally {
    process.stderr.write("\n");
  }
}
