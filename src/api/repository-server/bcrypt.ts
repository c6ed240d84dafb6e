import { Worker } from "node:worker_threads";
import { CairnError } from "../../errors.ts";

/** A password to be tried, and the answer to it. */
export interface BcryptQuestion {
  number: number;
  password: string;
  /** The hash as an htpasswd file has it. */
  hash: string;
}

export interface BcryptAnswer {
  number: number;
  right?: boolean;
  failure?: string;
}

interface Waiting {
  resolve(right: boolean): void;
  reject(error: Error): void;
}

let worker: Worker | null = null;
let asked = 0;
const waiting = new Map<number, Waiting>();

/**
 * True when a password fits a bcrypt hash. A thread tries it; the first call starts that thread, which keeps no process
 * alive.
 */
export async function matchesBcrypt(password: string, hash: string): Promise<boolean> {
  const number = asked++;
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  waiting.set(number, { resolve, reject });
  worker ??= started();
  worker.postMessage({ number, password, hash } satisfies BcryptQuestion);
  return promise;
}

function started(): Worker {
  const made = new Worker(new URL("./bcrypt-worker.ts", import.meta.url), { execArgv: [] });
  made.on("message", ({ number, right, failure }: BcryptAnswer) => {
    const { resolve, reject } = waiting.get(number)!;
    waiting.delete(number);
    if (right === undefined) reject(new CairnError("internal", `a password could not be tried: ${failure}`));
    else resolve(right);
  });
  made.on("error", (error) => {
    worker = null;
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  });
  made.unref();
  return made;
}
