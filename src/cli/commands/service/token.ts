import { type TokenCreated, type TokenInfo, TokenOptions } from "../../../verbs/schemas.ts";
import type { CommandDefinition } from "../../command.ts";
import { only } from "../../definitions.ts";
import { usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { formatAge, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import { askDaemon } from "./status.ts";

const ACTIONS = ["create", "list", "revoke"];
const CREATED = new VerbOptions(TokenOptions.entries);

export const command: CommandDefinition = {
  name: "service token",
  arguments: [
    { name: "<action>", text: "create, list or revoke", completes: ACTIONS },
    { name: "[id]", text: "revoke: the token's id", of: ["revoke"] },
  ],
  options: only({ of: ["create"] }, CREATED.definitions),
  examples: [
    {
      line: "cairn service token create --workspace ~/project",
      text: "create a token for an agent in that folder; the token is shown only once",
    },
    { line: "cairn service token list", text: "list your tokens; as root, all tokens" },
    { line: "cairn service token revoke 0123456789abcdef", text: "revoke a token at once" },
  ],
  async run(context, input) {
    const action = input.required(0);
    const id = input.argument(1);
    if (!ACTIONS.includes(action))
      throw usage(`the action of service token must be one of ${ACTIONS.join(", ")}; found ${JSON.stringify(action)}`);
    const options = CREATED.read(context, input);
    const { style } = context;
    if (action === "create") {
      const made = (await askDaemon("tokenCreate", { options })) as TokenCreated;
      const whose = made.kind === "agent" ? "an agent" : "a person";
      return {
        data: made,
        text: () =>
          [
            made.token,
            style.dim(
              `  for ${whose}, until ${made.expires_at.slice(0, 16)}Z; the token is shown only now; to revoke it earlier:`,
            ),
            style.cyan(`  cairn service token revoke ${made.token_id}`),
          ].join("\n"),
      };
    }
    if (action === "revoke") {
      const revoked = (await askDaemon("tokenRevoke", { id })) as TokenInfo;
      return {
        data: revoked,
        text: () => `${style.green("revoked")} ${revoked.token_id} ${printable(revoked.name)}`.trimEnd(),
      };
    }
    const tokens = (await askDaemon("tokenList")) as TokenInfo[];
    return { data: { tokens }, paged: true, text: async () => render(tokens) };
  },
};

async function render(tokens: readonly TokenInfo[]): Promise<string> {
  if (tokens.length === 0) return "there are no tokens; `cairn service token create` makes one";
  const now = Date.now();
  const rows = tokens.map(({ token_id, kind, uid, created_at, expires_at, workspaces, name }) => [
    token_id,
    kind,
    `uid ${uid}`,
    `created ${formatAge(created_at, now)}`,
    Date.parse(expires_at) <= now ? "expired" : `until ${expires_at.slice(0, 16)}Z`,
    workspaces === null ? "all workspaces" : workspaces.map(({ path }) => printable(path)).join(", "),
    printable(name),
  ]);
  return (await renderTable(rows, [])).join("\n");
}
