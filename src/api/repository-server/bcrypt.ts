import { Worker } from "node:worker_threads";
import { ThreadCalls } from "../../threads/calls.ts";
import type { BcryptFunctions } from "./bcrypt-worker.ts";

const calls = new ThreadCalls<BcryptFunctions>(
  () => new Worker(new URL("./bcrypt-worker.ts", import.meta.url), { execArgv: [] }),
);

/** True if a password matches a bcrypt hash of an htpasswd file. Runs in a thread. */
export async function matchesBcrypt(password: string, hash: string): Promise<boolean> {
  return await calls.call("matches", { password, hash });
}
