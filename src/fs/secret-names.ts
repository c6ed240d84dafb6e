/**
 * Names of files with credentials, as secret scanners and the programs that write them define them. Other files may
 * have secrets too. `holds`: true if the first part of a file's content, in latin1, is a secret.
 */
const SECRETS: readonly { kind: string; names: readonly string[]; holds?: (text: string) => boolean }[] = [
  {
    kind: "a private key of ssh",
    names: ["id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"],
  },
  { kind: "a private key of ssh", names: [".ssh/*", "*_key"], holds: hasPrivateKey },
  // Excludes certificates, public keys, and presentations of Keynote, which are zips.
  {
    kind: "a private key or certificate",
    names: ["*.pem", "*.key"],
    holds: (text) => hasPrivateKey(text) || !/^PK\u0003\u0004|-----BEGIN /.test(text),
  },
  { kind: "a private key or certificate", names: ["*.ppk", "*.p12", "*.pfx", "*.jks", "*.keystore"] },
  { kind: "a private key of age", names: ["keys.txt", "key.txt"], holds: (text) => text.includes("AGE-SECRET-KEY-") },
  { kind: "a password store", names: ["*.kdbx", ".netrc", ".pgpass", ".git-credentials", ".pypirc", ".htpasswd"] },
  { kind: "variables with secrets", names: [".env", ".env.*"] },
  { kind: "credentials of a cloud", names: [".aws/credentials", "application_default_credentials.json"] },
  {
    kind: "credentials of a cloud",
    names: ["*service*account*.json", "*credentials*.json"],
    holds: (text) => /"(?:private_key|refresh_token|client_secret)"/.test(text),
  },
  { kind: "a client's secret", names: ["client_secret*.json", "tokens/*.json"] },
  { kind: "a login of a tool", names: [".kube/config", ".docker/config.json", "gh/hosts.yml", ".vault-token"] },
  { kind: "a login of a tool", names: [".my.cnf", ".mylogin.cnf", "rclone.conf", "credentials.tfrc.json"] },
  { kind: "a login of a tool", names: [".cargo/credentials.toml", ".cargo/credentials"] },
  { kind: "a login of a tool", names: [".npmrc"], holds: (text) => /_(?:authToken|auth|password)\s*=/.test(text) },
  { kind: "a state with secrets", names: ["*.tfstate", "*.tfstate.backup"] },
  {
    kind: "an agent's token",
    names: [".claude/.credentials.json", ".codex/auth.json", ".gemini/oauth_creds.json"],
  },
];

function hasPrivateKey(text: string): boolean {
  return /-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----/.test(text);
}

/** Names of example files, which have no real credentials. */
const EXAMPLES = [".env.example", ".env.sample", ".env.template", ".env.dist"];

/** Ignore patterns for all files that are secrets by their name alone. */
export const SECRET_PATTERNS: readonly string[] = [
  ...SECRETS.flatMap(({ names, holds }) =>
    holds === undefined ? names.map((name) => (name.includes("/") ? `**/${name}` : name)) : [],
  ),
  ...EXAMPLES.map((name) => `!${name}`),
];

/**
 * False for patterns such as `tokens/*.json`, whose last name fits too many files: each would need a check of its path.
 */
const isKnownAlone = (name: string): boolean => !/\/.*\*/.test(name);
const LAST_NAMES = oneOf(
  SECRETS.flatMap(({ names }) => names.filter(isKnownAlone).map((name) => name.slice(name.lastIndexOf("/") + 1))),
);
const NOT = oneOf(EXAMPLES);
const ANY = new RegExp(`(?:^|/)${oneOf(SECRETS.flatMap(({ names }) => names)).source.slice(1)}`);
const KINDS = SECRETS.map(({ kind, names, holds }) => ({
  kind,
  holds,
  fits: new RegExp(`(?:^|/)${oneOf(names).source.slice(1)}`),
}));

function oneOf(names: readonly string[]): RegExp {
  const sources = names.map((name) => name.replaceAll(".", "\\.").replaceAll("*", "[^/]*"));
  return new RegExp(`^(?:${sources.join("|")})$`);
}

/**
 * True if the name at `at` in `names` may be the name of a file with a secret, in any folder. A first save calls it for
 * every file.
 */
export function maySecret(names: Uint8Array, at: number, length: number): boolean {
  if (!isWorthReading(names, at, length)) return false;
  return LAST_NAMES.test(Buffer.from(names.buffer, names.byteOffset + at, length).toString("latin1"));
}

/** A fast check of a few bytes, because most names are no secrets. */
function isWorthReading(names: Uint8Array, at: number, length: number): boolean {
  const first = names[at];
  // .env, id_…
  if (first === 0x2e || (first === 0x69 && names[at + 1] === 0x64)) return true;
  const end = at + length;
  const isStem = first === 0x63 || first === 0x61 || first === 0x6f || first === 0x68;
  switch (names[end - 1]) {
    // .pem, .key, _key, .ppk, .p12, .pfx, .jks, .kdbx; credentials
    case 0x6d:
    case 0x79:
    case 0x6b:
    case 0x32:
    case 0x78:
    case 0x73:
      return names[end - 4] === 0x2e || names[end - 4] === 0x5f || names[end - 5] === 0x2e || isStem;
    // .keystore, .tfstate; .backup
    case 0x65:
    case 0x70:
      return names[end - 9] === 0x2e || names[end - 8] === 0x2e || names[end - 7] === 0x2e;
    // keys.txt; rclone.conf
    case 0x74:
    case 0x66:
      return first === 0x6b || first === 0x72;
    // client_secret….json, service-account.json
    case 0x6e:
      return isStem || names[end - 5] === 0x2e;
    // config, credentials.toml, hosts.yml
    case 0x67:
    case 0x6c:
      return isStem;
    default:
      return false;
  }
}

/** A file that may be a secret by its path. `holds` absent: its name alone decides. */
export interface Suspect {
  kind: string;
  /** True if the first part of the file's content, in latin1, is a secret. */
  holds: ((text: string) => boolean) | undefined;
}

/** Returns the secret that a file may be by its raw path; null if the path matches none. */
export function suspectAt(path: Uint8Array): Suspect | null {
  const text = Buffer.from(path.buffer, path.byteOffset, path.length).toString("latin1");
  if (NOT.test(text.slice(text.lastIndexOf("/") + 1))) return null;
  const all = ANY.test(text) ? KINDS.filter(({ fits }) => fits.test(text)) : [];
  const [first] = all;
  if (first === undefined) return null;
  const named = all.find(({ holds }) => holds === undefined);
  return named ?? { kind: first.kind, holds: (content) => all.some(({ holds }) => holds!(content)) };
}
