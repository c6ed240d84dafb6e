import type { Client, Turn } from "../../../contract/index.ts";
import { TurnsOptions, type TurnsResult } from "../../../contract/turns.ts";
import { pick } from "../../../contract/schema.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { describeFailed, withUnopened } from "../../../workspace/points/failed-hooks.ts";
import { VerbOptions } from "../../options.ts";
import { type Shorten, shortener } from "../../shorten.ts";
import type { Style } from "../../render/style.ts";

const OPTIONS = new VerbOptions(pick(TurnsOptions, "session", "limit"));

export const command: CommandDefinition = {
  name: "turns",
  answers: true,
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn turns", text: "the newest turns of coding agents: prompt, commands and changed files" },
    { line: "cairn rewind 1", text: "back to before the newest turn" },
  ],
  async run(context, input) {
    const client = await context.open();
    const result = await client.turns({ ...context.callOptions(), ...OPTIONS.read(context, input) });
    result.failed_hooks = await withOwnHooks(context, client, result.failed_hooks);
    return {
      data: result,
      paged: true,
      async text() {
        const none = `no hook of an agent has saved here yet; ${context.commandLine(["agent", "install", "TOOL"])} adds the hooks`;
        const { plural, printable, shownTime } = await import("../../render/format.ts");
        const failed = result.failed_hooks.map((each) =>
          context.style.yellow(printable(describeFailed(each, shownTime))),
        );
        if (result.turns.length === 0) return [...failed, none].join("\n");
        const ids = result.turns.flatMap(({ before, after }) => [before, after].filter((id) => id !== null));
        const shorten = await shortener(client, ids);
        const blocks = await Promise.all(result.turns.map((turn) => render(turn, shorten, context.style)));
        const more =
          result.more === 0 ? [] : [context.style.dim(`… ${plural(result.more, "turn")} more (-n 0 lists all)`)];
        return [...failed, ...blocks, ...more].join("\n");
      },
    };
  },
};

/** Adds this user's hooks that could not open the workspace: root's daemon cannot read their record. */
async function withOwnHooks(
  context: Context,
  client: Client,
  known: TurnsResult["failed_hooks"],
): Promise<TurnsResult["failed_hooks"]> {
  const folder = client.workspacePath();
  if (withUnopened([], folder).length === 0) return known;
  const { agents } = await client.agentEvents({ ...context.callOptions(), limit: 0 });
  return withUnopened(agents, folder).flatMap(({ agent, failed }) => (failed === null ? [] : [{ agent, ...failed }]));
}

const SHOWN_PATHS = 6;
const SHOWN_COMMANDS = 4;

async function render(turn: Turn, shorten: Shorten, style: Style): Promise<string> {
  const { firstLine, formatMinute, plural, printable, shownPath } = await import("../../render/format.ts");
  const {
    turn_id: id,
    agent,
    session,
    prompt,
    commands,
    before,
    why_not: whyNot,
    changed,
    paths,
    not_saved: failed,
    taken_back: isBack,
    uncertain,
  } = turn;
  const who = session === null ? agent : `${agent} ${session.slice(0, 8)}`;
  const perhaps =
    uncertain === 0 ? "" : `${plural(uncertain, "entry")} changed, perhaps by this turn; \`cairn rewind ${id} --over\``;
  const surely = `${failed.length > 0 ? "at least " : ""}${plural(changed ?? 0, "entry")} changed`;
  const change =
    (changed ?? 0) > 0 ? surely : changed === null ? "changes unknown" : uncertain > 0 ? perhaps : "nothing changed";
  const besides = change === perhaps || uncertain === 0 ? [] : [`    ${style.yellow(perhaps)}`];
  const names = paths.slice(0, SHOWN_PATHS).map(({ path }) => shownPath(path));
  const more = (changed ?? 0) > names.length && names.length > 0 ? ", …" : "";
  return [
    `${style.bold(id)}  ${formatMinute(turn.started_at, Date.now())}  ${style.dim(printable(who))}  ${prompt === null ? style.dim("(no prompt)") : firstLine(prompt)}`,
    ...commands.slice(0, SHOWN_COMMANDS).map((each) => `    ${style.cyan("$")} ${firstLine(each)}`),
    ...(commands.length > SHOWN_COMMANDS
      ? [style.dim(`    … ${plural(commands.length - SHOWN_COMMANDS, "command")} more`)]
      : []),
    `    ${change}${names.length > 0 ? `: ${names.join(", ")}${more}` : ""}; ${before === null ? style.yellow(`no state before: ${whyNot}`) : `before: ${shorten(before)}`}${isBack ? style.yellow("; taken back") : ""}`,
    ...besides,
    ...failed
      .filter((each) => before !== null || whyNot?.includes(each) !== true)
      .map((each) => `    ${style.yellow("not saved")}: ${firstLine(each)}`),
  ].join("\n");
}
