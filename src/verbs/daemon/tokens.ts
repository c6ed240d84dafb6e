import { number, object, type Of, oneOf, opt, orNull, place, rows, some, span, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions, NamedPath } from "../../contract/words.ts";
import { daemonCall } from "../kinds/define.ts";

export const TokenOptions = object({
  ...CallOptions.entries,
  kind: opt(
    oneOf(
      ["agent", "person"],
      "`agent` (default): can save, compare, restore and fork, but cannot delete data or change settings; `person`: has all rights of its creator",
    ),
    {
      flags: "--person",
      text: "the token has all your rights; default: it can save, compare, restore and fork, but cannot delete data",
      value: "person",
    },
  ),
  workspaces: opt(
    some(place(), "restrict the token to this folder; an `agent` token needs at least one"),
    "--workspace <dir>",
  ),
  expires: opt(span("how long the token is valid, from 1h to 366d; default 30d")),
  name: opt(text("purpose of the token, at most 200 characters")),
});
export type TokenOptions = Of<typeof TokenOptions>;
export const TokenInfo = object({
  token_id: text("16 hex digits"),
  name: text(),
  kind: oneOf(["agent", "person"]),
  uid: number("user id that the token acts for"),
  created_at: text(),
  expires_at: text(),
  workspaces: orNull(rows(NamedPath, "folders that the token is restricted to; null: all of the user's workspaces")),
});
export type TokenInfo = Of<typeof TokenInfo>;
export const TokenCreated = object({
  ...TokenInfo.entries,
  token: text("the secret that requests send; it is shown only now"),
});
export type TokenCreated = Of<typeof TokenCreated>;

export const tokenCreate = daemonCall({
  about: "Creates a token that acts for the caller. Only over the Unix socket, and not with a token.",
  options: TokenOptions,
  output: TokenCreated,
  errors: ["permission", "not_a_workspace"],
  command: "service token create",
  by: "kernel",
  passing: true,
  logged: true,
});

export const tokenList = daemonCall({
  about: "Lists the caller's tokens; for operators, all tokens.",
  output: rows(TokenInfo),
  errors: ["permission"],
  command: { "service token list": object({ tokens: rows(TokenInfo) }) },
  by: "kernel",
  passing: true,
});

export const tokenRevoke = daemonCall({
  about: "Revokes a token at once.",
  takes: [arg("id", text())],
  output: TokenInfo,
  errors: ["not_found", "permission"],
  command: "service token revoke",
  by: "kernel",
  passing: true,
  logged: true,
});
