import { Worker } from "node:worker_threads";
import { ThreadCalls } from "../../threads/calls.ts";
import type { BcryptFunctions } from "./bcrypt-worker.ts";

const calls = new ThreadCalls<BcryptFunctions>(
  () => new Worker(new URL("./bcrypt-worker.ts", import.meta.url), { execArgv: [] }),
);

/** True when a password fits a bcrypt hash, as an htpasswd file has it. A thread tries it. */
export async function matchesBcrypt(password: string, hash: string): Promise<boolean> {
  return await calls.call("matches", { password, hash });
}
