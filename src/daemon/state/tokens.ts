import { advice, CairnError, call, either, type Hint, word } from "../../errors.ts";
import type { ServedWorkspace } from "../../formats/records/daemon-state.ts";
import { encodeChecked, rawPath } from "../../formats/records/record.ts";
import {
  decodeTokens,
  encodeTokens,
  type KeptToken,
  type TokensFile,
  type TokenWorkspace,
} from "../../formats/records/tokens.ts";
import { durableWrite } from "../../fs/durable.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import type { TokenCreated, TokenInfo, TokenOptions } from "../../verbs/schemas.ts";
import { before, parseSpan } from "../../workspace/keep/retention.ts";
import { type Caller, isOperator, isWholeOperator } from "./peer.ts";
import { readOrSetAside } from "./state-file.ts";
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { join } from "node:path";

const MAX_FILE_BYTES = 16 << 20;
/** The most tokens that one user may have at once; operators have no limit. */
const MOST_OF_ONE = 100;
/** The most forks that one token, or one folder's user, may make. Each fork stays a workspace. */
export const MOST_FORKS = 100;
const DEFAULT_SPAN = "30d";
const LONGEST_MS = 366 * 24 * 3_600_000;
const FORM = /^cairn_([0-9a-f]{16})_([0-9a-f]{64})$/;

/** A request whose token is not valid. The answer gives no reason; `details.reason` is for the log. */
export class NotAdmitted extends CairnError {
  constructor(
    reason: string,
    message = "a valid token is required",
    hint: Hint = advice`send a token as \`Authorization: Bearer TOKEN\`; a person creates one with ${call("service token create", "tokenCreate")}`,
  ) {
    super("permission", message, { hint, details: { reason } });
  }
}

/** The caller whom a valid token names. */
export interface Admitted {
  caller: Caller;
  /** Fires when the token is revoked. */
  revoked: AbortSignal;
  expiresAt: number;
}

/**
 * Tokens by which programs act for a user. All tokens are in one file, which is replaced as a whole: the rename is the
 * commit of each change, and a kill leaves the old tokens or the new ones.
 */
export class Tokens {
  readonly #path: string;
  #file: TokensFile = { tokens: [] };
  #tokens = new Map<string, KeptToken>();
  readonly #ends = new Map<string, AbortController>();

  constructor(directory: string) {
    this.#path = join(directory, "tokens.json");
  }

  /**
   * Reads the tokens. Returns sentences for the log. If the file is damaged no token is valid. Throws `newer_version`.
   */
  load(): string[] {
    const notes: string[] = [];
    const read = readOrSetAside(this.#path, MAX_FILE_BYTES, decodeTokens, notes);
    if (read !== null) this.#keep(read.value);
    return notes.map((each) => `${each}; tokens that were made before are not valid any more`);
  }

  /** Makes a token that acts for its maker. The secret is returned only here. Throws `usage`, `refused`. */
  create(
    maker: Caller,
    { kind = "agent", expires = DEFAULT_SPAN, name = "" }: TokenOptions,
    workspaces: readonly ServedWorkspace[] | null,
  ): TokenCreated {
    if (kind === "agent" && workspaces === null)
      throw new CairnError("usage", "the token of an agent must name the workspaces on which it may act", {
        hint: advice`name each ${either("with --workspace DIR", "in `workspaces`")}`,
      });
    const now = Date.now();
    const { years, months, days, hours } = parseSpan(expires);
    const ends = before(now, { years: -years, months: -months, days: -days, hours: -hours });
    if (!(ends > now && ends <= now + LONGEST_MS))
      throw new CairnError("usage", `a token can last from 1h to 366d; found ${expires}`);
    const own = this.#alive().filter(({ uid }) => uid === maker.uid).length;
    if (own >= MOST_OF_ONE && !isOperator(maker))
      throw new CairnError("refused", `you have ${own} tokens, and no more are allowed`, {
        hint: advice`revoke some: ${call("service token revoke ID", "tokenRevoke", word("id"))}`,
      });
    const [id, secret] = [randomBytes(8).toString("hex"), randomBytes(32).toString("hex")];
    const kept: KeptToken = {
      id,
      name,
      kind,
      uid: maker.uid,
      gid: maker.gid,
      secret_sha256: digestOf(secret).toString("hex"),
      created_at: new Date(now).toISOString(),
      expires_at: new Date(ends).toISOString(),
      workspaces: workspaces?.map(namedOf) ?? null,
    };
    this.#change([...this.#alive(), kept]);
    return { ...infoOf(kept), token: `cairn_${id}_${secret}` };
  }

  /** Returns the tokens of a user, for operators all tokens. */
  list(caller: Caller): TokenInfo[] {
    return [...this.#tokens.values()].filter((each) => isTheirs(caller, each)).map(infoOf);
  }

  /** Revokes a token and ends its calls. Throws `not_found`, and system errors: the token is then valid again after a restart. */
  revoke(caller: Caller, id: string): TokenInfo {
    const token = this.#tokens.get(id);
    if (token === undefined || !isTheirs(caller, token))
      throw new CairnError("not_found", `you have no token ${JSON.stringify(id.slice(0, 40))}`, {
        hint: advice`${call("service token list", "tokenList")} shows the ids`,
      });
    // The token is revoked in memory even if the disk is full.
    this.#tokens.delete(id);
    this.#ends.get(id)?.abort(new Error("the token was revoked"));
    this.#ends.delete(id);
    this.#change(this.#alive());
    return infoOf(token);
  }

  /** Throws `refused` if the token has made as many forks as it may. */
  requireForkable(id: string): void {
    const forks = this.#tokens.get(id)?.workspaces?.filter((each) => each.fork === true) ?? [];
    if (forks.length < MOST_FORKS) return;
    throw new CairnError("refused", `${forks.length} forks were made with this token, and no more are allowed`, {
      hint: "ask a person for another token",
    });
  }

  /** Adds a fork to the workspaces of the token with which it was made. */
  addWorkspace(id: string, workspace: ServedWorkspace): void {
    this.#change(
      this.#alive().map((each) =>
        each.id === id && each.workspaces !== null
          ? { ...each, workspaces: [...each.workspaces, { ...namedOf(workspace), fork: true }] }
          : each,
      ),
    );
  }

  /** The workspace of a token that was made for one, without its forks; null for other tokens and without a token. */
  workspaceOf(id: string | null): string | null {
    const made = (this.#tokens.get(id ?? "")?.workspaces ?? []).filter((each) => each.fork !== true);
    return made.length === 1 ? made[0]!.path : null;
  }

  /** Returns the caller whom an `Authorization` header names. Throws `NotAdmitted`. */
  admit(authorization: string | undefined, agents: ReadonlySet<number>): Admitted {
    const [, given] = /^Bearer +(\S{1,200})$/i.exec(authorization ?? "") ?? [];
    const [, id, secret] = FORM.exec(given ?? "") ?? [];
    if (id === undefined)
      throw new NotAdmitted(authorization === undefined ? "without a token" : "with something that is not a token");
    const token = this.#tokens.get(id);
    if (token === undefined) throw new NotAdmitted(`with token ${id}, which is not known or was revoked`);
    if (!timingSafeEqual(digestOf(secret!), Buffer.from(token.secret_sha256, "hex")))
      throw new NotAdmitted(`with a wrong secret for token ${id}`);
    const expiresAt = Date.parse(token.expires_at);
    if (Date.now() >= expiresAt) throw new NotAdmitted(`with token ${id}, which has expired`);
    const { uid, gid, kind, workspaces } = token;
    const only = workspaces === null ? null : new Set(workspaces.map((each) => each.id));
    let end = this.#ends.get(id);
    if (end === undefined) this.#ends.set(id, (end = new AbortController()));
    const caller = { pid: 0, uid, gid, isAgent: kind === "agent" || agents.has(uid), token: id, only };
    return { caller, revoked: end.signal, expiresAt };
  }

  #alive(): KeptToken[] {
    const now = Date.now();
    return [...this.#tokens.values()].filter((each) => Date.parse(each.expires_at) > now);
  }

  #change(tokens: KeptToken[]): void {
    const file = { ...this.#file, tokens };
    const bytes = encodeChecked(file, encodeTokens, decodeTokens);
    if (bytes.length > MAX_FILE_BYTES)
      throw new CairnError("refused", "there are too many tokens", {
        hint: advice`revoke some: ${call("service token revoke ID", "tokenRevoke", word("id"))}`,
      });
    durableWrite(this.#path, bytes, { mode: 0o600 });
    this.#keep(file);
  }

  #keep(file: TokensFile): void {
    this.#file = file;
    this.#tokens = new Map(file.tokens.map((each) => [each.id, each]));
  }
}

function digestOf(secret: string): Buffer {
  return createHash("sha256").update(secret).digest();
}

function isTheirs(caller: Caller, { uid }: KeptToken): boolean {
  return uid === caller.uid || isWholeOperator(caller);
}

function namedOf({ id, path, path_b64 }: ServedWorkspace): TokenWorkspace {
  return { id, path, ...(path_b64 === undefined ? {} : { path_b64 }) };
}

function infoOf({ id, name, kind, uid, created_at, expires_at, workspaces }: KeptToken): TokenInfo {
  return {
    token_id: id,
    name,
    kind,
    uid,
    created_at,
    expires_at,
    workspaces: workspaces?.map((each) => displayPath(rawPath(each))) ?? null,
  };
}
