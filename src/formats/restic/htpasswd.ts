import { CairnError } from "../../errors.ts";

/** A stored password hash of a user of a repository server: docs/formats/htpasswd.md. */
export type PasswordProof =
  | { readonly scheme: "sha1"; readonly hash: Uint8Array }
  /** `$2y$05$…`, 60 characters. */
  | { readonly scheme: "bcrypt"; readonly text: string }
  | {
      readonly scheme: "scrypt";
      /** Cost as a power of two, block size, parallelism. */
      readonly ln: number;
      readonly r: number;
      readonly p: number;
      readonly salt: Uint8Array;
      readonly hash: Uint8Array;
    };

export interface Htpasswd {
  readonly users: ReadonlyMap<string, PasswordProof>;
  /** Invalid lines, without secrets. */
  readonly problems: readonly string[];
}

/** Longest file that is read, in bytes. */
export const MAX_HTPASSWD_BYTES = 4 << 20;

const USER = /^[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]{0,127}$/;
const MAX_SCRYPT_BYTES = 256 << 20;

/** Checking one password at this cost takes about a second. */
const MAX_BCRYPT_COST = 14;

const OTHER_SCHEMES: readonly { begins: RegExp; name: string }[] = [
  { begins: /^\$apr1\$/, name: "Apache's MD5" },
  { begins: /^\$[156]\$/, name: "crypt" },
  { begins: /^\{SSHA\}/, name: "salted SHA-1" },
];

/** True for a valid user name, which may also be a folder's name. */
function isUserName(name: string): boolean {
  return USER.test(name);
}

/** Returns the users of an htpasswd file. Never throws: an invalid line becomes a problem, and its user is unknown. */
export function decodeHtpasswd(text: string): Htpasswd {
  const users = new Map<string, PasswordProof>();
  const problems: string[] = [];
  for (const [place, raw] of text.split("\n").entries()) {
    const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
    if (line.trim() === "" || line.startsWith("#")) continue;
    try {
      const colon = line.indexOf(":");
      const user = line.slice(0, Math.max(colon, 0));
      if (!isUserName(user)) throw new CairnError("usage", "it has no valid user name (letters, digits and . _ - @ +)");
      if (users.has(user)) throw new CairnError("usage", `an earlier line has the same user, ${user}`);
      users.set(user, decodeProof(line.slice(colon + 1)));
    } catch (error) {
      problems.push(`line ${place + 1}: ${(error as Error).message}`);
    }
  }
  return { users, problems };
}

/** Returns a line of the file, without the line break. */
export function encodeHtpasswdLine(user: string, proof: PasswordProof): string {
  if (!isUserName(user))
    throw new CairnError(
      "usage",
      `a user name may have only letters, digits and . _ - @ +, found ${JSON.stringify(user)}`,
    );
  if (proof.scheme === "sha1") return `${user}:{SHA}${Buffer.from(proof.hash).toString("base64")}`;
  if (proof.scheme === "bcrypt") return `${user}:${proof.text}`;
  const { ln, r, p, salt, hash } = proof;
  return `${user}:$scrypt$ln=${ln},r=${r},p=${p}$${bare(salt)}$${bare(hash)}`;
}

function decodeProof(text: string): PasswordProof {
  if (text.startsWith("{SHA}")) {
    const hash = fromBase64(text.slice(5).replace(/=+$/, ""));
    if (hash?.length !== 20) throw new CairnError("usage", "the text after {SHA} is not a SHA-1 in base64");
    return { scheme: "sha1", hash };
  }
  if (text.startsWith("$scrypt$")) return decodeScrypt(text);
  if (text.startsWith("$2")) return decodeBcrypt(text);
  const other = OTHER_SCHEMES.find(({ begins }) => begins.test(text));
  throw new CairnError("usage", `the password has an unsupported form (${other?.name ?? "plain or crypt"})`);
}

function decodeBcrypt(text: string): PasswordProof {
  const cost = Number(/^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/.exec(text)?.[1]);
  if (!(cost >= 4)) throw new CairnError("usage", "the text after $2y$ is not a cost, a salt and a hash of bcrypt");
  if (cost > MAX_BCRYPT_COST)
    throw new CairnError(
      "usage",
      `bcrypt with a cost of ${cost} would take too much time; the limit is ${MAX_BCRYPT_COST}`,
    );
  return { scheme: "bcrypt", text };
}

function decodeScrypt(text: string): PasswordProof {
  const match = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/.exec(text);
  const [ln, r, p] = [Number(match?.[1]), Number(match?.[2]), Number(match?.[3])];
  const salt = fromBase64(match?.[4] ?? "");
  const hash = fromBase64(match?.[5] ?? "");
  if (match === null || salt === null || hash === null || salt.length > 64 || hash.length < 16 || hash.length > 64)
    throw new CairnError("usage", "the text after $scrypt$ is not ln=…,r=…,p=…$salt$hash");
  const fits = ln >= 1 && ln <= 24 && r >= 1 && p >= 1 && p <= 16 && 128 * 2 ** ln * r <= MAX_SCRYPT_BYTES;
  if (!fits) throw new CairnError("usage", `scrypt with ln=${ln}, r=${r}, p=${p} would take too much memory or time`);
  return { scheme: "scrypt", ln, r, p, salt, hash };
}

/** Returns null unless the text is exact base64 without padding. */
function fromBase64(text: string): Uint8Array | null {
  const bytes = Buffer.from(text, "base64");
  return bytes.length > 0 && bare(bytes) === text ? bytes : null;
}

function bare(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64").replace(/=+$/, "");
}
