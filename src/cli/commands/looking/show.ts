import type { Client, ShowResult } from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import { type Context, toWorkspacePath } from "../../context.ts";
import { CairnError } from "../../../errors.ts";
import { ShowOptions } from "../../../contract/looking.ts";
import { pick } from "../../../contract/schema.ts";
import { type Input, usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { contentOutcome, PATH_B64, RECURSIVE, splitTarget, TARGET, walkOutcome, writtenTo } from "../../shown.ts";
import { formatBytes, printable, shellQuote } from "../../render/format.ts";
import { shortener } from "../../shorten.ts";

const OPTIONS = new VerbOptions(pick(ShowOptions, "limit", "skip", "sort", "reverse"));
const FORMATS = ["tar", "zip"] as const;

export const command: CommandDefinition = {
  name: "show",
  answers: true,
  arguments: [
    {
      name: "<point[:path]>",
      text: "a save point, and a path from the workspace's root, or from the current folder if it begins with ./ or ../",
      completes: "points",
    },
  ],
  options: [
    RECURSIVE,
    ...OPTIONS.definitions,
    {
      flags: "--archive <format>",
      text: "write the path and everything below it as an archive: tar or zip",
      values: FORMATS,
    },
    TARGET,
    PATH_B64,
  ],
  examples: [
    { line: "cairn show head", text: "the point's facts and its top entries" },
    { line: "cairn show head~2:src", text: "list a folder" },
    { line: "cairn show -R head", text: "list everything" },
    { line: "cairn show head~2:src --archive zip --target src.zip", text: "a folder as an archive" },
    { line: "cairn show 1a2b3c4d:src/main.ts > old.ts", text: "print one file's bytes" },
  ],
  async run(context, input) {
    const [point, named, fromHere] = splitTarget(input);
    let path = named === "/" ? undefined : named;
    if (typeof path === "string" && path.startsWith("/"))
      throw usage(`give the path after the colon relative to the workspace's root, without a leading slash: ${path}`);
    const client = await context.open();
    const options = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const format = readArchiveFormat(context, input);
    if (fromHere !== undefined) path = toWorkspacePath(client.workspacePath(), context.cwd, fromHere) || undefined;
    const shown = await client.show(point, path, options).catch(async (error: unknown) => {
      if (typeof path !== "string" || fromHere !== undefined) throw error;
      throw await withPathFromHere(context, client, { target: point, path, error });
    });
    const { save_point_id: id } = shown.save_point;
    if (input.flag("recursive")) {
      const head = async (): Promise<string[]> => pointLines(context, client, shown);
      return walkOutcome(context, { shown, entries: client.walk(id, path ?? "", context.callOptions()), head });
    }
    const call = context.callOptions();
    const content = (): AsyncIterable<Uint8Array> =>
      format === undefined
        ? client.read(id, path ?? "", call)
        : client.readArchive(id, format, { ...call, ...(path === undefined ? {} : { paths: [path] }) });
    const target = input.text("target");
    if (target !== undefined && (format !== undefined || shown.kind === "file")) {
      const written = await writtenTo(context.place(target), content());
      const text = (): string => `${formatBytes(written.bytes)} in ${printable(written.target)}`;
      return { data: { ...shown, ...written }, text };
    }
    if (target !== undefined)
      throw usage(`a ${shown.kind} can only be written as an archive: use --archive tar or zip`);
    if (format !== undefined) return { data: shown, content: content() };
    if (shown.kind !== "file") return listing(context, client, shown);
    return contentOutcome(context, shown, content);
  },
};

/** Throws `usage` for an archive that would go to a terminal, and for options that exclude each other. */
function readArchiveFormat({ globals }: Context, input: Input): (typeof FORMATS)[number] | undefined {
  const format = input.choice("archive", FORMATS);
  const target = input.text("target");
  if (input.flag("recursive") && (format !== undefined || target !== undefined))
    throw usage("-R lists entries: it works neither with --archive nor with --target");
  if (format !== undefined && target === undefined && (globals.json || process.stdout.isTTY))
    throw usage("an archive is not written to a terminal: use a pipe, or --target FILE");
  return format;
}

/** The error, with a path that is there in the point when it is taken from the current folder. */
async function withPathFromHere(
  context: Context,
  client: Client,
  { target, path, error }: { target: string; path: string; error: unknown },
): Promise<unknown> {
  if (!(error instanceof CairnError) || error.code !== "not_found") return error;
  try {
    const near = toWorkspacePath(client.workspacePath(), context.cwd, path);
    if (near === path) return error;
    await client.show(target, near, context.callOptions());
    const [whole, short] = [`${target}:${near}`, `${target}:./${path}`].map(shellQuote);
    return new CairnError(error.code, error.message, {
      hint: `did you mean ${whole}, which is ${short} from the current folder?`,
    });
  } catch {
    return error;
  }
}

function listing(context: Context, client: Client, shown: ShowResult): Outcome {
  return {
    data: shown,
    paged: true,
    async text() {
      const { renderListing } = await import("../../render/listing.ts");
      const lines = await renderListing(shown, context.style);
      return [...(await pointLines(context, client, shown)), ...lines].join("\n");
    },
  };
}

/** Returns the head of a point that is shown whole. */
async function pointLines(
  { style }: Context,
  client: Client,
  { path, save_point: point }: ShowResult,
): Promise<string[]> {
  if (path !== "") return [];
  const { renderPoint } = await import("../../render/listing.ts");
  const shorten = await shortener(client, [point.parent_id, point.restored_from]);
  return [...(await renderPoint(point, shorten, style)), ""];
}
