import { type TokenCreated, type TokenInfo, TokenOptions } from "../../../verbs/schemas.ts";
import { type CommandDefinition, group } from "../../command.ts";
import { VerbOptions } from "../../options.ts";
import { formatAge, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import { askDaemon } from "./status.ts";

const CREATED = new VerbOptions(TokenOptions.entries);

const create: CommandDefinition = {
  name: "service token create",
  options: CREATED.definitions,
  examples: [
    {
      line: "cairn service token create --workspace ~/project",
      text: "create a token for an agent in that folder; the token is shown only once",
    },
  ],
  async run(context, input) {
    const { style } = context;
    const made = (await askDaemon("tokenCreate", { options: CREATED.read(context, input) })) as TokenCreated;
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
  },
};

const list: CommandDefinition = {
  name: "service token list",
  examples: [{ line: "cairn service token list", text: "list your tokens; as root, all tokens" }],
  async run() {
    const tokens = (await askDaemon("tokenList")) as TokenInfo[];
    return { data: { tokens }, paged: true, text: async () => render(tokens) };
  },
};

const revoke: CommandDefinition = {
  name: "service token revoke",
  arguments: [{ name: "<id>", text: "the token's id" }],
  examples: [{ line: "cairn service token revoke 0123456789abcdef", text: "revoke a token at once" }],
  async run(context, input) {
    const revoked = (await askDaemon("tokenRevoke", { id: input.required(0) })) as TokenInfo;
    return {
      data: revoked,
      text: () => `${context.style.green("revoked")} ${revoked.token_id} ${printable(revoked.name)}`.trimEnd(),
    };
  },
};

export const command = group({
  name: "service token",
  examples: [...create.examples, ...list.examples],
  verbs: {
    create: { summary: "create a token", load: async () => ({ command: create }) },
    list: { summary: "list tokens", load: async () => ({ command: list }) },
    revoke: { summary: "revoke a token at once", load: async () => ({ command: revoke }) },
  },
});

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
