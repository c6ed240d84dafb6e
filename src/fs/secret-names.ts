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
  { kind: "a private key or certificate", names: ["*.ppk", "*.p8", "*.p12", "*.pfx", "*.jks", "*.keystore"] },
  { kind: "a private key or certificate", names: ["*.asc", "*.ovpn"], holds: hasPrivateKey },
  { kind: "a private key or certificate", names: ["secring.gpg"] },
  { kind: "a private key of WireGuard", names: ["wg*.conf"], holds: (text) => /^PrivateKey\s*=/m.test(text) },
  { kind: "a private key of age", names: ["keys.txt", "key.txt"], holds: (text) => text.includes("AGE-SECRET-KEY-") },
  { kind: "a password store", names: ["*.kdbx", ".netrc", "_netrc", ".authinfo", ".pgpass", ".git-credentials"] },
  { kind: "a password store", names: [".pypirc", ".htpasswd", ".vault_pass", "wallet.dat"] },
  { kind: "a password store", names: ["logins.json"], holds: (text) => text.includes("encryptedPassword") },
  { kind: "variables with secrets", names: [".env", ".env.*", ".streamlit/secrets.toml"] },
  {
    kind: "variables with secrets",
    names: ["*.env", ".envrc", "local.settings.json", "*.tfvars", "wp-config.php"],
    holds: hasSecret,
  },
  {
    // Not `secrets.*`: in a program's source, such as Python's secrets.py, `token: str` is no token.
    kind: "variables with secrets",
    names: ["yml", "yaml", "json", "toml", "ini", "conf", "properties", "txt", "xml"].map((end) => `secrets.${end}`),
    holds: hasSecret,
  },
  { kind: "credentials of a cloud", names: [".aws/credentials", "application_default_credentials.json", ".s3cfg"] },
  { kind: "credentials of a cloud", names: ["gcloud/credentials.db", "msal_token_cache.json"] },
  {
    kind: "credentials of a cloud",
    names: ["*service*account*.json", "*credentials*.json", "*adminsdk*.json"],
    holds: (text) => /"(?:private_key|refresh_token|client_secret)"/.test(text),
  },
  { kind: "a client's secret", names: ["client_secret*.json", "tokens/*.json"] },
  { kind: "a login of a tool", names: [".kube/config", ".docker/config.json", "gh/hosts.yml", ".vault-token"] },
  { kind: "a login of a tool", names: [".my.cnf", ".mylogin.cnf", "rclone.conf", "credentials.tfrc.json"] },
  { kind: "a login of a tool", names: [".cargo/credentials.toml", ".cargo/credentials", "huggingface/token"] },
  { kind: "a login of a tool", names: [".composer/auth.json", "composer/auth.json"] },
  { kind: "a login of a tool", names: [".npmrc"], holds: (text) => /_(?:authToken|auth|password)\s*=/.test(text) },
  { kind: "a login of a tool", names: [".yarnrc.yml", "settings.xml"], holds: hasSecret },
  { kind: "a login of a tool", names: ["kubeconfig", "kubeconfig*.y*ml", "kubeconfig*.conf"], holds: hasSecret },
  { kind: "a state with secrets", names: ["*.tfstate", "*.tfstate.backup"] },
  {
    kind: "an agent's token",
    names: [".claude/.credentials.json", ".codex/auth.json", ".gemini/oauth_creds.json", "opencode/auth.json"],
  },
];

function hasPrivateKey(text: string): boolean {
  return /-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----/.test(text);
}

/** True for a line that gives a password, token or key a value, in any of the usual notations. */
function hasSecret(text: string): boolean {
  return /(?:passw(?:or)?d|secret|token|(?:api|access|account|private)_?key|client-key-data)\w*["']?\s*[=:>,]\s*["']?[^\s"'<#]/i.test(
    text,
  );
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
function isKnownAlone(name: string): boolean {
  return !/\/.*\*/.test(name);
}

const LAST_NAMES = oneOf(SECRETS.flatMap(({ names }) => names.filter(isKnownAlone).map(lastPart)));
const NOT = oneOf(EXAMPLES);

function lastPart(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1);
}

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

/** The last two bytes of names that may be secrets, the two bytes before them, and the first two of names with any ending. */
const [LAST, BEFORE, FIRST] = [new Uint8Array(1 << 16), new Uint8Array(1 << 16), new Uint8Array(1 << 16)];
for (const name of SECRETS.flatMap(({ names }) => names.filter(isKnownAlone).map(lastPart))) {
  const bytes = Buffer.from(name.slice(name.lastIndexOf("*") + 1));
  if (bytes.length < 2) FIRST[Buffer.from(name).readUInt16LE(0)] = 1;
  else {
    LAST[bytes.readUInt16LE(bytes.length - 2)] = 1;
    if (bytes.length >= 4) BEFORE[bytes.readUInt16LE(bytes.length - 4)] = 1;
    else for (let any = 0; any < 256; any++) BEFORE[any | (bytes[0]! << 8)] = 1;
  }
}

/** A fast check of a few bytes, because most names are no secrets. */
function isWorthReading(names: Uint8Array, at: number, length: number): boolean {
  if (length < 4) return false;
  const end = at + length;
  if (FIRST[names[at]! | (names[at + 1]! << 8)] === 1) return true;
  const isLast = LAST[names[end - 2]! | (names[end - 1]! << 8)] === 1;
  return isLast && BEFORE[names[end - 4]! | (names[end - 3]! << 8)] === 1;
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
