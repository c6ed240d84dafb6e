import { Fields } from "../fields.ts";
import { checkPath, decodeRecord, encodeRecord, type RecordedPath } from "./record.ts";

/** Tokens of a daemon, without their secrets. Layout: docs/formats/tokens.md. */
const FORMAT = "cairn.tokens";
const VERSION = 1;

/**
 * `agent`: may make calls that cannot lose data, in the workspaces that the token names. `person`: may make all calls
 * of its maker.
 */
export const TOKEN_KINDS = ["agent", "person"] as const;
export type TokenKind = (typeof TOKEN_KINDS)[number];

export interface TokenWorkspace extends RecordedPath {
  /** The workspace's id, which decides access. `path` is the workspace's path when the token got access, for people. */
  id: string;
  /** True: a call with the token created the workspace as a fork. */
  fork?: boolean;
}

export interface KeptToken {
  id: string;
  /** A name that the maker chose; may be empty. */
  name: string;
  kind: TokenKind;
  /** The user for whom the token acts: its maker. */
  uid: number;
  gid: number;
  /** SHA-256 of the secret, in hex. */
  secret_sha256: string;
  created_at: string;
  expires_at: string;
  /** Null: all workspaces of its maker. */
  workspaces: TokenWorkspace[] | null;
}

export interface TokensFile {
  tokens: KeptToken[];
}

export function encodeTokens(file: TokensFile): Uint8Array {
  return encodeRecord(file, FORMAT, VERSION);
}

/** Keeps members of later versions, at any depth. Throws `damaged`, naming the field, or `newer_version`. */
export function decodeTokens(bytes: Uint8Array): TokensFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  fields.list("tokens", (element, label) => {
    const token = new Fields(element, label);
    token.hex("id", 16);
    token.text("name", 200);
    const kind = token.text("kind", 100);
    if (!TOKEN_KINDS.includes(kind as TokenKind)) throw token.wrong("kind", `one of ${TOKEN_KINDS.join(", ")}`);
    for (const key of ["uid", "gid"]) token.integer(key, 2 ** 32 - 1);
    token.hex("secret_sha256", 64);
    for (const key of ["created_at", "expires_at"]) token.time(key);
    if (!token.isNull("workspaces")) token.list("workspaces", checkWorkspace);
    // Null would give the agent all workspaces.
    else if (kind === "agent") throw token.wrong("workspaces", "a list");
  });
  return value as unknown as TokensFile;
}

function checkWorkspace(element: unknown, label: string): void {
  const fields = new Fields(element, label);
  checkPath(fields);
  fields.hex("id", 32);
  if (fields.has("fork")) fields.boolean("fork");
}
