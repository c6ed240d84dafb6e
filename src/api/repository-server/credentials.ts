import { createHash, createHmac, randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { statSync } from "node:fs";
import { CairnError } from "../../errors.ts";
import {
  decodeHtpasswd,
  encodeHtpasswdLine,
  MAX_HTPASSWD_BYTES,
  type Htpasswd,
  type PasswordProof,
} from "../../formats/restic/htpasswd.ts";
import { readSmallFile } from "../../fs/durable.ts";
import { matchesBcrypt } from "./bcrypt.ts";

/** 32 MiB and some 60 ms for each guess. */
const COST = { ln: 15, r: 8, p: 1 } as const;
const PROOFS_AT_ONCE = 2;
const PROOFS_WAITING = 32;
const REMEMBERED = 1000;
const LOOK_AGAIN_MS = 1000;
const MAX_PASSWORD_BYTES = 1024;

const NOBODY: Htpasswd = { users: new Map(), problems: [] };

/** Returns the line of an htpasswd file for this user and password. Throws `usage`. */
export async function htpasswdLine(user: string, password: string): Promise<string> {
  if (password === "") throw new CairnError("usage", "the password is empty");
  if (Buffer.byteLength(password) > MAX_PASSWORD_BYTES)
    throw new CairnError("usage", `the password has more than ${MAX_PASSWORD_BYTES} bytes`);
  const proof = { scheme: "scrypt", ...COST, salt: randomBytes(16), hash: new Uint8Array(32) } as const;
  return encodeHtpasswdLine(user, { ...proof, hash: await derive(password, proof) });
}

export type Login = { user: string } | { refused: "unknown" | "busy" };

/** The users of a server, from an htpasswd file that is read again when it changes. */
export class Credentials {
  readonly #path: string;
  readonly #onProblem: (message: string) => void;
  readonly #rememberKey = randomBytes(32);
  #known: Htpasswd = NOBODY;
  #remembered = new Map<string, string>();
  #stamp = "";
  #lookAgainAt = 0;
  #running = 0;
  #waiting: (() => void)[] = [];

  private constructor(path: string, onProblem: (message: string) => void) {
    this.#path = path;
    this.#onProblem = onProblem;
  }

  /** Reads the file. Throws `not_found`, and `usage` for a line that does not parse. */
  static open(path: string, onProblem: (message: string) => void): Credentials {
    const credentials = new Credentials(path, onProblem);
    const read = credentials.#read();
    if (read === null) throw new CairnError("not_found", `there is no file of users at ${path}`, { hint: HINT });
    if (read.problems.length > 0) throw new CairnError("usage", `${path}, ${read.problems.join("; ")}`, { hint: HINT });
    if (read.users.size === 0) throw new CairnError("usage", `${path} names no user`, { hint: HINT });
    credentials.#known = read;
    return credentials;
  }

  /** Returns the user of an `Authorization` header. */
  async login(header: string | undefined): Promise<Login> {
    const given = parseBasic(header);
    if (given === null) return { refused: "unknown" };
    this.#lookAgain();
    const { user, password } = given;
    const proof = this.#known.users.get(user);
    const mark = createHmac("sha256", this.#rememberKey).update(`${user}\0${password}`).digest("base64");
    if (this.#remembered.get(user) === mark) return { user };
    const dearest = dearestOf(this.#known);
    if (dearest === null) return { refused: "unknown" };
    const free = this.#take();
    if (free === null) return { refused: "busy" };
    await free;
    let right = false;
    try {
      // Every name takes as much time as the slowest hash, so that the time does not reveal whether a name exists.
      const tried = proof === undefined || costOf(proof) === costOf(dearest) ? [] : [dearest];
      [right = false] = await Promise.all([proof ?? dearest, ...tried].map(async (each) => matches(password, each)));
      right &&= proof !== undefined;
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
    }
    // The file may have changed while the password was tried.
    if (!right || this.#known.users.get(user) !== proof) return { refused: "unknown" };
    if (this.#remembered.size >= REMEMBERED) this.#remembered.clear();
    this.#remembered.set(user, mark);
    return { user };
  }

  /** Waits for a turn to try a password; null if too many wait. */
  #take(): Promise<void> | null {
    if (this.#running < PROOFS_AT_ONCE) {
      this.#running++;
      return Promise.resolve();
    }
    if (this.#waiting.length >= PROOFS_WAITING) return null;
    return new Promise((go) =>
      this.#waiting.push(() => {
        this.#running++;
        go();
      }),
    );
  }

  #lookAgain(): void {
    const now = performance.now();
    if (now < this.#lookAgainAt) return;
    this.#lookAgainAt = now + LOOK_AGAIN_MS;
    if (stampOf(this.#path) === this.#stamp) return;
    let read: Htpasswd | null = null;
    try {
      read = this.#read();
      if (read === null) this.#onProblem(`${this.#path} is gone: nobody can log in`);
    } catch (error) {
      this.#onProblem(`${(error as Error).message}: nobody can log in`);
    }
    for (const problem of read?.problems ?? []) this.#onProblem(`${this.#path}, ${problem}: that user cannot log in`);
    this.#known = read ?? NOBODY;
    this.#remembered = new Map();
  }

  #read(): Htpasswd | null {
    this.#stamp = stampOf(this.#path);
    const bytes = readSmallFile(this.#path, MAX_HTPASSWD_BYTES, true);
    return bytes === null ? null : decodeHtpasswd(bytes.toString("utf8"));
  }
}

const HINT = "add a line with `cairn serve-repository --hash-password USER >> FILE`, or with `htpasswd -B`";

function stampOf(path: string): string {
  const facts = statSync(path, { throwIfNoEntry: false, bigint: true });
  return facts === undefined ? "" : `${facts.dev} ${facts.ino} ${facts.size} ${facts.mtimeNs} ${facts.ctimeNs}`;
}

function parseBasic(header: string | undefined): { user: string; password: string } | null {
  const match = /^Basic +([A-Za-z0-9+/=_-]{1,4096})$/i.exec(header ?? "");
  if (match === null) return null;
  const text = Buffer.from(match[1] ?? "", "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon < 1 || text.length - colon > MAX_PASSWORD_BYTES) return null;
  return { user: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** Null if there are no users. */
function dearestOf({ users }: Htpasswd): PasswordProof | null {
  let dearest: PasswordProof | null = null;
  for (const proof of users.values()) if (dearest === null || costOf(proof) > costOf(dearest)) dearest = proof;
  return dearest;
}

/** Estimated milliseconds of a guess. */
function costOf(proof: PasswordProof): number {
  if (proof.scheme === "sha1") return 0;
  return proof.scheme === "bcrypt"
    ? 2 ** Number(proof.text.slice(4, 6)) / 16
    : (2 ** proof.ln * proof.r * proof.p) / 4400;
}

async function matches(password: string, proof: PasswordProof): Promise<boolean> {
  if (proof.scheme === "bcrypt") return matchesBcrypt(password, proof.text);
  const hash = proof.scheme === "sha1" ? createHash("sha1").update(password).digest() : await derive(password, proof);
  return timingSafeEqual(hash, proof.hash);
}

function derive(password: string, proof: PasswordProof & { scheme: "scrypt" }): Promise<Buffer> {
  const { ln, r, p, salt, hash } = proof;
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const options = { N: 2 ** ln, r, p, maxmem: 130 * 2 ** ln * r + 256 * r * p + (1 << 20) };
  scrypt(password, salt, hash.length, options, (error, key) => (error === null ? resolve(key) : reject(error)));
  return promise;
}
