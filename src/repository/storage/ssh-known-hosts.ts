import { createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { toCairnError } from "../../errors.ts";

/** What the files of known host keys say of a key. `place` is `file:line`. */
export type HostVerdict =
  | { readonly verdict: "known" }
  /** Nothing is noted of this host. */
  | { readonly verdict: "unknown" }
  /** Other keys are noted, and not this one. */
  | { readonly verdict: "changed"; readonly place: string; readonly fingerprint: string }
  | { readonly verdict: "revoked"; readonly place: string };

interface Entry {
  readonly revoked: boolean;
  readonly hosts: string;
  readonly type: string;
  readonly key: Buffer;
  readonly place: string;
}

/** The name under which a host's key is noted: `host`, or `[host]:port` for any port but 22. */
export function knownHostName(host: string, port: number): string {
  const name = host.toLowerCase();
  return port === 22 ? name : `[${name}]:${port}`;
}

/** `SHA256:` and base64, as `ssh-keygen -l` prints it. */
export function fingerprintOf(key: Uint8Array): string {
  return `SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`;
}

/** The type that stands at the front of a public key, e.g. `ssh-ed25519`; empty when there is none. */
export function keyTypeOf(key: Uint8Array): string {
  if (key.length < 4) return "";
  const length = new DataView(key.buffer, key.byteOffset).getUint32(0);
  if (length > 100 || length > key.length - 4) return "";
  return Buffer.from(key.subarray(4, 4 + length)).toString("latin1");
}

/**
 * Host keys as OpenSSH notes them: plain, wildcard, negated and hashed names, `@revoked`. Lines that are not
 * understood note nothing; neither do `@cert-authority` lines, because no host certificates are asked for.
 */
export class KnownHosts {
  readonly #entries: readonly Entry[];

  private constructor(entries: readonly Entry[]) {
    this.#entries = entries;
  }

  /** Reads the files in their order; one that is not there is empty, one that cannot be read is an error. */
  static read(files: readonly string[]): KnownHosts {
    return new KnownHosts(files.flatMap((file) => parse(readIfThere(file), file)));
  }

  static parse(text: string, file = "known_hosts"): KnownHosts {
    return new KnownHosts(parse(text, file));
  }

  /** Types of the keys that are noted for a name (see `knownHostName`), each once, in the order of the files. */
  keyTypes(name: string): string[] {
    const found = this.#entries.filter((entry) => !entry.revoked && isNameOf(entry.hosts, name));
    return [...new Set(found.map((entry) => entry.type))];
  }

  check(name: string, key: Uint8Array): HostVerdict {
    const found = this.#entries.filter((entry) => isNameOf(entry.hosts, name));
    const same = found.filter((entry) => entry.key.equals(key));
    const revoked = same.find((entry) => entry.revoked);
    if (revoked !== undefined) return { verdict: "revoked", place: revoked.place };
    if (same.length > 0) return { verdict: "known" };
    const others = found.filter((entry) => !entry.revoked);
    const other = others.find((entry) => entry.type === keyTypeOf(key)) ?? others[0];
    if (other === undefined) return { verdict: "unknown" };
    return { verdict: "changed", place: other.place, fingerprint: fingerprintOf(other.key) };
  }
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return "";
    throw toCairnError(error, `cannot read the known host keys in ${file}`);
  }
}

function parse(text: string, file: string): Entry[] {
  return text.split("\n").flatMap((line, at) => {
    const words = line.trim().split(/\s+/);
    const marker = words[0]!.startsWith("@") ? words.shift() : "";
    const [hosts, type, base64] = words;
    if (hosts === undefined || hosts.startsWith("#") || type === undefined || base64 === undefined) return [];
    if (marker !== "" && marker !== "@revoked") return [];
    const key = Buffer.from(base64, "base64");
    if (keyTypeOf(key) !== type) return [];
    return [{ revoked: marker === "@revoked", hosts, type, key, place: `${file}:${at + 1}` }];
  });
}

function isNameOf(hosts: string, name: string): boolean {
  if (!hosts.startsWith("|1|")) return matchesPatterns(hosts.toLowerCase().split(","), name);
  const [, , salt, hash] = hosts.split("|");
  if (salt === undefined || hash === undefined) return false;
  return createHmac("sha1", Buffer.from(salt, "base64")).update(name).digest().equals(Buffer.from(hash, "base64"));
}

/** True when one of the patterns (`*`, `?`) fits and none that begins with `!` does. */
export function matchesPatterns(patterns: readonly string[], name: string): boolean {
  let fits = false;
  for (const pattern of patterns) {
    const negated = pattern.startsWith("!");
    if (!matchesPattern(negated ? pattern.slice(1) : pattern, name)) continue;
    if (negated) return false;
    fits = true;
  }
  return fits;
}

/** In one pass with one place to go back to, so that no pattern takes long. */
function matchesPattern(pattern: string, name: string): boolean {
  let [p, n, star, starred] = [0, 0, -1, 0];
  while (n < name.length) {
    if (pattern[p] === "*") {
      star = p++;
      starred = n;
    } else if (p < pattern.length && (pattern[p] === "?" || pattern[p] === name[n])) {
      p++;
      n++;
    } else if (star >= 0) {
      p = star + 1;
      n = ++starred;
    } else return false;
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}
