import type { Client, ShowResult } from "../../../contract/index.ts";
import { ReadOptions, ShowOptions } from "../../../contract/looking.ts";
import { pick } from "../../../contract/schema.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import { type Context, toWorkspacePath } from "../../context.ts";
import { CairnError } from "../../../errors.ts";
import type { OptionDefinition } from "../../definitions.ts";
import { type Input, usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import {
  pathOf,
  contentOutcome,
  PATH_B64,
  RECURSIVE,
  requireArchivePlace,
  splitSibling,
  splitTarget,
  TARGET,
  walkOutcome,
  writtenOutcome,
} from "../../shown.ts";
import { BACKUP_OPTIONS, backupIn, operandOf, orPathsHint, requireNoRepository } from "../../operands.ts";
import { plural, shellQuote } from "../../render/format.ts";
import { shortener } from "../../shorten.ts";

const PAGE = new VerbOptions(pick(ShowOptions, "limit"));
const ORDERS = ["name", "size", "time", "kind"] as const;
const SORT = {
  flags: "--sort <how>",
  text: "order of the entries: `name` by the bytes of the names (default), `size`, `time`, or `kind` directories first; in the opposite order with `-` before the word, for example -size",
  values: ORDERS.flatMap((order) => [order, `-${order}` as const]),
} satisfies OptionDefinition;
const ARCHIVE = new VerbOptions(pick(ReadOptions, "archive"));

export const command: CommandDefinition = {
  name: "show",
  answers: true,
  arguments: [
    {
      name: "<point[:path]>",
      text: "a save point, or backup:SNAPSHOT, and a path from the workspace's root, or from the current folder if it begins with ./ or ../",
      completes: "points",
    },
  ],
  options: [RECURSIVE, ...PAGE.definitions, SORT, ...ARCHIVE.definitions, TARGET, PATH_B64, ...BACKUP_OPTIONS],
  examples: [
    { line: "cairn show head", text: "the point's facts and its top entries" },
    { line: "cairn show head~2:src", text: "list a folder" },
    { line: "cairn show head:src --sort -size -n 10", text: "the ten largest files of a folder" },
    { line: "cairn show backup:latest:src", text: "list a folder of the last backup" },
    { line: "cairn show -R head", text: "list everything" },
    { line: "cairn show head~2:src --archive tar | tar x -C /tmp", text: "a folder as an archive: /tmp/src" },
    { line: "cairn show 1a2b3c4d:src/main.ts > old.ts", text: "print one file's bytes" },
  ],
  async run(context, input) {
    const client = await context.open();
    const backup = backupIn(context, client, input.required(0));
    if (backup !== null) return shownBackup(context, input, backup);
    requireNoRepository(input);
    const operand = operandOf(context, client, input.required(0));
    const [target, named] = await splitSibling(client, splitTarget(input, operand));
    const path = named === "/" ? undefined : named;
    if (typeof path === "string" && path.startsWith("/"))
      throw usage(`give the path after the colon relative to the workspace's root, without a leading slash: ${path}`);
    const page = pageOf(context, input);
    const archive = ARCHIVE.read(context, input);
    const file = input.text("to");
    requireArchivePlace(context, input, archive.archive !== undefined);
    const options = context.callOptions();
    const shown = await client.show(target, path, { ...options, ...page }).catch(async (error: unknown) => {
      const lineOf = (of: string, files: readonly string[]): string[] => [
        "show",
        `${of}:${String(context.workspacePaths(client, files, [])[0])}`,
      ];
      if (path === undefined) throw await orPathsHint(context, client, error, { words: [target], lineOf });
      if (typeof path !== "string" || operand !== input.required(0)) throw error;
      throw await withPathFromHere(context, client, { target, path, error });
    });
    const { save_point_id: id } = shown.save_point;
    if (input.flag("recursive")) {
      const head = async (): Promise<string[]> => pointLines(context, client, shown);
      return walkOutcome(context, { shown, entries: client.walk(id, path ?? "", options), head });
    }
    const content = (): AsyncIterable<Uint8Array> => client.read(id, path ?? "", { ...options, ...archive });
    const isArchive = archive.archive !== undefined;
    if (file !== undefined) return writtenOutcome(context, { shown, file, isArchive }, content);
    if (isArchive) return { data: shown, content: content() };
    return shown.kind === "file" ? contentOutcome(context, shown, content) : listing(context, client, shown);
  },
};

function pageOf(context: Context, input: Input): Pick<ShowOptions, "limit" | "sort" | "reverse"> {
  const how = input.choice("sort", SORT.values);
  const sort = ORDERS.find((order) => how?.endsWith(order));
  return {
    ...PAGE.read(context, input),
    ...(sort === undefined ? {} : { sort }),
    ...(how?.startsWith("-") === true ? { reverse: true } : {}),
  };
}

/** Shows a place in a backup of this folder as `backup show` does. */
async function shownBackup(
  context: Context,
  input: Input,
  { path, ...backup }: NonNullable<ReturnType<typeof backupIn>>,
): Promise<Outcome> {
  if (Object.keys(pageOf(context, input)).length > 0) throw usage("-n and --sort work with save points only");
  const { showSnapshot } = await import("../backup/show.ts");
  return showSnapshot(context, input, { ...backup, path: pathOf(input, path) });
}

/** Returns the error; if the path exists in the point relative to the current folder, with that path. */
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
      const { entries, total } = shown;
      const lines = await renderListing(shown, context.style);
      if (entries.length < total) lines.push(context.style.dim(`${entries.length} of ${plural(total, "entry")}`));
      return [...(await pointLines(context, client, shown)), ...lines].join("\n");
    },
  };
}

/** Returns the head lines for a whole point. */
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
