import type { Cause, SaveOptions } from "../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { EXIT_PARTLY } from "../envelope.ts";
import { EXCLUDE_FILE_OPTION, readExcludes, readUnwanted, unwantedOptions } from "../exclude-files.ts";
import { allowOption, parseGuards, usage } from "../input.ts";
import type { Input } from "../input.ts";

export const command: CommandDefinition = {
  name: "save",
  arguments: [
    { name: "[dir]", text: "the folder; one that was never initialised is adopted first", completes: "folders" },
  ],
  options: [
    { flags: "-m, --message <text>", text: "what this state is" },
    { flags: "-t, --tag <tag>", text: "a tag; may be repeated", repeat: true },
    { flags: "--cause <json>", text: 'what led to it, e.g. {"kind":"tool_call","tool":"bash"}' },
    {
      flags: "--exclude <pattern>",
      text: "leave out, as in .cairnignore, or a whole path; may be repeated",
      repeat: true,
    },
    EXCLUDE_FILE_OPTION,
    ...unwantedOptions(),
    { flags: "--skip-unchanged", text: "make no point when nothing changed" },
    { flags: "--refuse-detached", text: "fail when the folder stands at an older point" },
    { flags: "--reread", text: "read every file, whatever its times say" },
    { flags: "--cross-mounts", text: "go into other file systems mounted inside" },
    allowOption(["home", "nested", "git", "space"]),
  ],
  examples: [
    { line: "cairn save", text: "the folder you are in" },
    {
      line: 'cairn save ~/project -m "before the upgrade" -t upgrade',
      text: "another folder, with a message and a tag",
    },
    {
      line: `cairn save --skip-unchanged --json`,
      text: "for programs: one JSON object, no point when nothing changed",
    },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const options = readOptions(context, input);
  const client = await context.openOrAdopt(input.argument(0), input.list("allow"));
  const result = await client.save(options);
  const { made, changes, read_bytes, duration_ms, left_out, ...savePoint } = result;
  return {
    data: { save_point: savePoint, made, changes, read_bytes, duration_ms, left_out },
    exitStatus: result.complete || left_out.length === 0 ? 0 : EXIT_PARTLY,
    async text() {
      const { renderSave, shortener } = await import("../render/points.ts");
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
}

function readOptions(context: Context, input: Input): SaveOptions {
  const options: SaveOptions = {
    ...context.callOptions(),
    tags: input.list("tag"),
    exclude: readExcludes(context, input),
    ...readUnwanted(input),
    allow: parseGuards(input.list("allow")),
    skipUnchanged: input.flag("skipUnchanged"),
    reread: input.flag("reread"),
    crossMounts: input.flag("crossMounts"),
    onDetached: input.flag("refuseDetached") ? "refuse" : "continue",
  };
  const message = input.text("message");
  if (message !== undefined) options.message = message;
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
    throw usage("--cause wants an object with a `kind`", CAUSE_HINT);
  return value as Cause;
}

const CAUSE_HINT = `for example --cause '{"kind":"tool_call","tool":"bash"}'`;
