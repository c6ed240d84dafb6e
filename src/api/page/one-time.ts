import { createHash, randomBytes, timingSafeEqual } from "node:crypto";

interface Kept<T> {
  digest: Buffer;
  until: number;
  value: T;
}

const SECRET_BYTES = 16;
const MOST = 1000;

/** Secrets that can be used once, until they expire, each with a value. */
export class OneTime<T> {
  readonly #lifeMs: number;
  readonly #now: () => number;
  #kept: readonly Kept<T>[] = [];

  /** `now`: a clock in milliseconds. */
  constructor(lifeMs: number, now: () => number = () => performance.now()) {
    this.#lifeMs = lifeMs;
    this.#now = now;
  }

  /** Returns a new secret of 128 random bits, in base64url. Drops the oldest if there are too many. */
  make(value: T): string {
    const secret = randomBytes(SECRET_BYTES).toString("base64url");
    const made = { digest: digestOf(secret), until: this.#now() + this.#lifeMs, value };
    this.#kept = [...this.#live().slice(1 - MOST), made];
    return secret;
  }

  /** Returns the value of a secret, once; null for any other text. The time does not depend on the text. */
  take(secret: string): { value: T } | null {
    const digest = digestOf(secret);
    const live = this.#live();
    const isIt = live.map((each) => timingSafeEqual(each.digest, digest));
    this.#kept = live.filter((_, at) => !isIt[at]);
    return live[isIt.indexOf(true)] ?? null;
  }

  #live(): readonly Kept<T>[] {
    const now = this.#now();
    return this.#kept.filter(({ until }) => until > now);
  }
}

/** Hashes a text: a comparison in constant time needs equal lengths. */
export function digestOf(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
