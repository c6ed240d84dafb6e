import {
  AddToContextOptions,
  type CheckContextOptions,
  type CheckContextResult,
  FindInContextOptions,
  InitContextOptions,
  ListContextOptions,
  ReadContextOptions,
  ReindexContextOptions,
} from "../../../contract/context.ts";
import { omit } from "../../../contract/schema.ts";
import { CairnError } from "../../../errors.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import type { Input } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { formatBytes, plural, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";

const UNDER = { name: "[uri]", text: "only at or below this URI" } as const;
const URI = { name: "<uri>", text: "a path in the store, for example viking://resources/docs" } as const;

const MADE = new VerbOptions(omit(InitContextOptions, "dimensions"));
export const init: CommandDefinition = {
  name: "context init",
  arguments: [{ name: "[folder]", text: "default: the current folder", completes: "folders" }],
  options: MADE.definitions,
  examples: [
    { line: "cairn context init knowledge", text: "with the model of the package cairnstate-model" },
    {
      line: "cairn context init knowledge --embedding openai --model nomic-embed-text --base-url http://127.0.0.1:11434/v1",
      text: "with a model server on this machine",
    },
  ],
  async run(context, input) {
    const library = await context.library();
    const folder = context.folder(input.argument(0));
    const info = await library.initContext(folder, { ...context.callOptions(), ...MADE.read(context, input) });
    const how =
      info.embedding === "none" ? "search by words only" : `vectors of ${info.dimensions} numbers by ${info.model}`;
    return {
      data: info,
      text: () => `${context.style.green("created")} a context store in ${printable(info.path)}: ${how}`,
    };
  },
};

const ADDED = new VerbOptions(AddToContextOptions.entries);
export const add: CommandDefinition = {
  name: "context add",
  arguments: [URI, { name: "<path>", text: "a file or folder", completes: "files" }],
  options: ADDED.definitions,
  examples: [{ line: "cairn context add viking://resources/docs ./docs", text: "add as viking://resources/docs" }],
  async run(context, input) {
    const library = await context.library();
    const result = await library.addToContext(context.folder(), input.required(0), context.place(input.required(1)), {
      ...context.callOptions(),
      ...ADDED.read(context, input),
    });
    const { left_out: left } = result;
    const summary = `${context.style.green("added")} ${printable(result.uri)}: ${plural(result.files, "file")}, ${formatBytes(result.bytes)}, ${plural(result.indexed, "index record")}`;
    const lines = left.slice(0, MOST_NAMED).map(({ path, reason }) => {
      const why = reason === "rule" ? "" : ": neither a file nor a folder";
      return `  ${context.style.yellow("left out")} ${printable(path)}${why}`;
    });
    const more = left.length > MOST_NAMED ? [`  and ${left.length - MOST_NAMED} more (--json lists all)`] : [];
    return {
      data: result,
      text: () => [summary, ...lines, ...more].join("\n"),
      exitStatus: left.some(({ reason }) => reason === "special") ? EXIT_PARTLY : 0,
    };
  },
};

const LISTED = new VerbOptions(ListContextOptions.entries);
export const ls: CommandDefinition = {
  name: "context ls",
  arguments: [{ name: "[uri]", text: "default: viking://" }],
  options: LISTED.definitions,
  examples: [{ line: "cairn context ls viking://resources", text: "list entries with their abstracts" }],
  async run(context, input) {
    const library = await context.library();
    const result = await library.listContext(context.folder(), input.argument(0) ?? "viking://", {
      ...context.callOptions(),
      ...LISTED.read(context, input),
    });
    return {
      data: result,
      paged: true,
      async text() {
        if (result.entries.length === 0) return "no entries";
        const lines = result.entries.map(({ uri, kind, size, abstract }) => [
          kind === "file" ? formatBytes(size) : "",
          printable(kind === "file" ? uri : `${uri}/`),
          context.style.dim(printable(abstract.slice(0, 80))),
        ]);
        return (await renderTable(lines, [0])).join("\n");
      },
    };
  },
};

const READ = new VerbOptions(ReadContextOptions.entries);
export const cat: CommandDefinition = {
  name: "context cat",
  harmless: true,
  arguments: [URI],
  options: READ.definitions,
  examples: [{ line: "cairn context cat viking://resources/docs --level 0", text: "print a directory's abstract" }],
  async run(context, input) {
    const library = await context.library();
    const result = await library.readContext(context.folder(), input.required(0), {
      ...context.callOptions(),
      ...READ.read(context, input),
    });
    const { content, content_b64: encoded } = result;
    const bytes = encoded === undefined ? Buffer.from(content) : Buffer.from(encoded, "base64");
    return { data: result, content: once(bytes), contentData: () => result };
  },
};

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

function under(input: Input, place: number): CheckContextOptions {
  const uri = input.argument(place);
  return uri === undefined ? {} : { under: uri };
}

const FOUND = new VerbOptions(omit(FindInContextOptions, "under"));
export const find: CommandDefinition = {
  name: "context find",
  harmless: true,
  arguments: [{ name: "<query>", text: "words, or a question" }, UNDER],
  options: FOUND.definitions,
  examples: [{ line: 'cairn context find "who may sign in" viking://resources/docs', text: "results, best first" }],
  async run(context, input) {
    const library = await context.library();
    const result = await library.findInContext(context.folder(), input.required(0), {
      ...context.callOptions(),
      ...FOUND.read(context, input),
      ...under(input, 1),
    });
    return {
      data: result,
      text() {
        if (result.hits.length === 0) return "nothing was found";
        const { style } = context;
        const lines = result.hits.map(({ uri, level, abstract }) => {
          const of = ["  (abstract)", "  (overview)", ""][level];
          const text = abstract === "" ? "" : `\n  ${printable(abstract.slice(0, 160))}`;
          return `${style.bold(printable(uri))}${style.dim(of ?? "")}${text}`;
        });
        return lines.join("\n");
      },
    };
  },
};

export const rm: CommandDefinition = {
  name: "context rm",
  arguments: [URI],
  examples: [{ line: "cairn context rm viking://resources/docs/old", text: "remove with everything below it" }],
  async run(context, input) {
    const library = await context.library();
    const result = await library.removeFromContext(context.folder(), input.required(0), context.callOptions());
    return { data: result, text: () => `removed ${printable(result.uri)}: ${plural(result.files, "file")}` };
  },
};

const INDEXED = new VerbOptions(omit(ReindexContextOptions, "under"));
export const reindex: CommandDefinition = {
  name: "context reindex",
  arguments: [UNDER],
  options: INDEXED.definitions,
  examples: [{ line: "cairn context reindex", text: "after files were changed by hand" }],
  async run(context, input) {
    const library = await context.library();
    const result = await library.reindexContext(context.folder(), {
      ...context.callOptions(),
      ...INDEXED.read(context, input),
      ...under(input, 0),
    });
    const { added, removed, changed, vectors } = result;
    return {
      data: result,
      text: () => `index: ${added} added, ${changed} changed, ${removed} removed, ${plural(vectors, "vector")} made`,
    };
  },
};

export const check: CommandDefinition = {
  name: "context check",
  arguments: [UNDER],
  examples: [{ line: "cairn context check", text: "exit 6 if files and index differ" }],
  async run(context, input) {
    const library = await context.library();
    const result = await library.checkContext(context.folder(), {
      ...context.callOptions(),
      ...under(input, 0),
    });
    const hint = "to update the index: cairn context reindex";
    return {
      data: result,
      text: () => report(context, result),
      ...(result.ok ? {} : { error: new CairnError("damaged", "files and index differ", { hint }) }),
    };
  },
};

const MOST_NAMED = 10;

function report({ style }: Context, result: CheckContextResult): string {
  const { ok, expected, missing_records, missing_files, stale, missing_vectors } = result;
  if (ok) return `${style.green("no difference")}: ${plural(expected, "record")}`;
  const named = (what: string, all: readonly { uri: string; level: number }[]): string[] =>
    all.length === 0
      ? []
      : [
          ...all.slice(0, MOST_NAMED).map(({ uri, level }) => `${style.yellow(what)} ${printable(uri)} level ${level}`),
          ...(all.length > MOST_NAMED ? [`  and ${all.length - MOST_NAMED} more (--json lists all)`] : []),
        ];
  return [
    ...named("not indexed", missing_records),
    ...named("no file", missing_files),
    ...named("changed", stale),
    ...named("no vector", missing_vectors),
  ].join("\n");
}
