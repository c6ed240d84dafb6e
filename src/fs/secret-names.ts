/**
 * Names of files that hold credentials, as secret scanners and the programs that write them know them. A name alone is looked
 * at: what it holds may be an example, and other files may hold secrets too.
 */
const SECRETS: readonly { kind: string; names: readonly string[] }[] = [
  {
    kind: "a private key of ssh",
    names: ["id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"],
  },
  { kind: "a private key or certificate", names: ["*.pem", "*.key", "*.ppk", "*.p12", "*.pfx", "*.jks", "*.keystore"] },
  { kind: "a password store", names: ["*.kdbx", ".netrc", ".pgpass", ".git-credentials", ".pypirc"] },
  { kind: "variables with secrets", names: [".env", ".env.*"] },
  { kind: "credentials of a cloud", names: [".aws/credentials", "application_default_credentials.json"] },
  { kind: "a client's secret", names: ["client_secret*.json"] },
  { kind: "a login of a tool", names: [".kube/config", ".docker/config.json", "gh/hosts.yml"] },
  {
    kind: "an agent's token",
    names: [".claude/.credentials.json", ".codex/auth.json", ".gemini/oauth_creds.json"],
  },
];
/** Files that show how to write such a file. */
const EXAMPLES = [".env.example", ".env.sample", ".env.template", ".env.dist"];

/** Ignore patterns that leave all of them out. */
export const SECRET_PATTERNS: readonly string[] = [
  ...SECRETS.flatMap(({ names }) => names.map((name) => (name.includes("/") ? `**/${name}` : name))),
  ...EXAMPLES.map((name) => `!${name}`),
];

const LAST_NAMES = oneOf(SECRETS.flatMap(({ names }) => names.map((name) => name.slice(name.lastIndexOf("/") + 1))));
const NOT = oneOf(EXAMPLES);
const KINDS = SECRETS.map(({ kind, names }) => ({ kind, fits: new RegExp(`(?:^|/)${oneOf(names).source.slice(1)}`) }));

function oneOf(names: readonly string[]): RegExp {
  const sources = names.map((name) => name.replaceAll(".", "\\.").replaceAll("*", "[^/]*"));
  return new RegExp(`^(?:${sources.join("|")})$`);
}

/** True where a name, some bytes of many, may be one of them, whatever folder it lies in. A first save asks this of every file. */
export function maySecret(names: Uint8Array, at: number, length: number): boolean {
  if (!isWorthReading(names, at, length)) return false;
  return LAST_NAMES.test(Buffer.from(names.buffer, names.byteOffset + at, length).toString("latin1"));
}

/** By a few bytes, as most names are none of these. */
function isWorthReading(names: Uint8Array, at: number, length: number): boolean {
  const first = names[at];
  // .env, id_…
  if (first === 0x2e || (first === 0x69 && names[at + 1] === 0x64)) return true;
  const end = at + length;
  const isStem = first === 0x63 || first === 0x61 || first === 0x6f || first === 0x68;
  switch (names[end - 1]) {
    // .pem, .key, .ppk, .p12, .pfx, .jks, .kdbx; credentials
    case 0x6d:
    case 0x79:
    case 0x6b:
    case 0x32:
    case 0x78:
    case 0x73:
      return names[end - 4] === 0x2e || names[end - 5] === 0x2e || isStem;
    // .keystore
    case 0x65:
      return names[end - 9] === 0x2e;
    // client_secret….json, auth.json, oauth_creds.json; config; hosts.yml
    case 0x6e:
    case 0x67:
    case 0x6c:
      return isStem;
    default:
      return false;
  }
}

/** The kind of secret that a file at a raw path looks like; null where it looks like none. */
export function secretKind(path: Uint8Array): string | null {
  const text = Buffer.from(path.buffer, path.byteOffset, path.length).toString("latin1");
  if (NOT.test(text.slice(text.lastIndexOf("/") + 1))) return null;
  return KINDS.find(({ fits }) => fits.test(text))?.kind ?? null;
}
