import type { Cause } from "../../contract/index.ts";
import { SaveOptions } from "../../contract/points.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { EXIT_PARTLY, hasFailed } from "../envelope.ts";
import { readExcludes, savingOptions } from "../exclude-files.ts";
import { usage } from "../input.ts";
import type { Input } from "../input.ts";
import { FROM_MSGVAULT, VerbOptions, withTags } from "../options.ts";
import { plural } from "../render/format.ts";
import { shortener } from "../shorten.ts";

const OPTIONS = new VerbOptions(SaveOptions.entries);
/** Begin of the reason in the label of a damaged database. */
const DAMAGED = "SQLite finds it damaged";

export const command: CommandDefinition = {
  name: "save",
  harmless: true,
  arguments: [
    {
      name: "[dir]",
      text: "the folder to save; becomes a workspace first if it is none; default: the current folder",
      completes: "folders",
    },
  ],
  options: [...savingOptions(OPTIONS.definitions), { ...FROM_MSGVAULT, excludes: "all others" }],
  examples: [
    { line: "cairn save", text: "save the current folder" },
    {
      line: 'cairn save ~/project -m "before the upgrade" -t upgrade',
      text: "another folder, with a message and a tag",
    },
    {
      line: "cairn save ~/mail --from-msgvault /mnt/backups/msgvault",
      text: "one point for each snapshot of msgvault; ~/mail stays as it is",
    },
    {
      line: `cairn save --skip-unchanged --json`,
      text: "for programs: one JSON object, and no point if nothing changed",
    },
  ],
  async run(context, input) {
    const options = readOptions(context, input);
    const repository = input.text("fromMsgvault");
    if (repository !== undefined) return importPoints(context, input, repository);
    const client = await context.openOrInit(input.argument(0), options.allow);
    // A daemon that makes the save does not see this process's environment.
    if (context.env["CAIRN_HOOKS_OF"]?.split(" ").includes(client.workspace.id) === true) options.hooks = false;
    const result = await client.save(options);
    for (const { path, reason = "" } of result.made ? result.labels : [])
      if (reason.startsWith(DAMAGED)) context.note(`${path}: ${reason}`);
    const { made, changes, read_bytes, duration_ms, left_out, not_kept, secrets, rows, hooks, ...savePoint } = result;
    return {
      data: { save_point: savePoint, made, changes, read_bytes, duration_ms, left_out, not_kept, secrets, rows, hooks },
      exitStatus:
        (result.complete || left_out.length === 0) && !hasFailed(hooks) && rows.every(({ wrong }) => wrong === 0)
          ? 0
          : EXIT_PARTLY,
      async text() {
        const { renderSave } = await import("../render/points.ts");
        const shorten = await shortener(client, [result.save_point_id]);
        const again = context.commandLine(["restore", shorten(result.save_point_id)], input.argument(0));
        return renderSave({
          result,
          skipped: !made,
          shorten,
          again,
          style: context.style,
        });
      },
    };
  },
};

async function importPoints(context: Context, input: Input, repository: string): Promise<Outcome> {
  const client = await context.openOrInit(input.argument(0));
  const result = await client.importMsgvaultPoints(context.absolute(repository), context.callOptions());
  for (const { snapshot_id: id, detail } of result.damaged) context.note(`snapshot ${id} was left out: ${detail}`);
  return {
    data: result,
    exitStatus: result.damaged.length === 0 ? 0 : EXIT_PARTLY,
    text: () =>
      `${context.style.green("saved")} ${plural(result.made, "save point")} of ${plural(result.points.length, "snapshot")}; \`${context.commandLine(["history"], input.argument(0))}\` lists them`,
  };
}

function readOptions(context: Context, input: Input): SaveOptions {
  const { cause: _json, ...given } = OPTIONS.read(context, input);
  const options: SaveOptions = { ...context.callOptions(), ...withTags(given), exclude: readExcludes(context, input) };
  const cause = input.text("cause");
  if (cause !== undefined) options.cause = parseCause(cause);
  return options;
}

function parseCause(text: string): Cause {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw usage(`--cause is not JSON: ${JSON.stringify(text.slice(0, 80))}`, CAUSE_HINT);
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  if (!isObject || typeof (value as { kind?: unknown }).kind !== "string")
    throw usage("--cause must be an object with a `kind`", CAUSE_HINT);
  return value as Cause;
}

const CAUSE_HINT = `for example --cause '{"kind":"tool_call","tool":"bash"}'`;
