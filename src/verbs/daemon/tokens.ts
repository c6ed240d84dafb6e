import { TokenCreated, TokenInfo, TokenOptions } from "../../contract/daemon.ts";
import { object, rows, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { daemonCall } from "../kinds/define.ts";

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
