import { ConvertBundleOptions } from "../../../contract/bundles.ts";
import type { CommandDefinition } from "../../command.ts";
import { VerbOptions } from "../../options.ts";
import { formatBytes, plural, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";

const BUNDLE = { name: "<bundle>", text: "the bundle file", completes: "files" } as const;

export const inspect: CommandDefinition = {
  name: "bundle inspect",
  harmless: true,
  arguments: [BUNDLE],
  examples: [{ line: "cairn bundle inspect docs.ovpack", text: "show its root, its layout and every entry" }],
  async run(context, input) {
    const info = await (
      await context.library()
    ).inspectBundle(context.absolute(input.required(0)), context.callOptions());
    return {
      data: info,
      paged: true,
      async text() {
        const { style } = context;
        const rows = info.entries.flatMap(({ path, kind, size }) =>
          path === ""
            ? []
            : [[kind === "file" ? formatBytes(size) : "", printable(kind === "file" ? path : `${path}/`)]],
        );
        return [
          `${style.bold(printable(info.uri))}  layout ${info.layout}, ${plural(info.files, "file")}, ${formatBytes(info.bytes)}`,
          `content ${info.content_sha256}`,
          `index   ${plural(info.index_records, "record")}${info.has_vectors ? " with vectors" : ""}`,
          ...(await renderTable(rows, [0])),
        ].join("\n");
      },
    };
  },
};

export const verify: CommandDefinition = {
  name: "bundle verify",
  harmless: true,
  arguments: [BUNDLE],
  examples: [{ line: "cairn bundle verify docs.ovpack", text: "exit 6 and the first problem, if there is one" }],
  async run(context, input) {
    const result = await (
      await context.library()
    ).verifyBundle(context.absolute(input.required(0)), context.callOptions());
    return {
      data: result,
      text: () =>
        `${context.style.green("no damage found")}: ${plural(result.files, "file")}, ${formatBytes(result.bytes)}, ${plural(result.index_records, "index record")}, layout ${result.layout}\n  content ${result.content_sha256}`,
    };
  },
};

export const diff: CommandDefinition = {
  name: "bundle diff",
  harmless: true,
  arguments: [
    { name: "<a>", text: "a bundle", completes: "files" },
    { name: "<b>", text: "another", completes: "files" },
  ],
  examples: [{ line: "cairn bundle diff old.ovpack new.ovpack", text: "list added, removed and changed entries" }],
  async run(context, input) {
    const [a, b] = [context.absolute(input.required(0)), context.absolute(input.required(1))];
    const result = await (await context.library()).diffBundles(a, b, context.callOptions());
    return {
      data: result,
      paged: true,
      text() {
        const { style } = context;
        const lines = [
          ...result.added.map((path) => style.green(`+ ${printable(path)}`)),
          ...result.removed.map((path) => style.red(`- ${printable(path)}`)),
          ...result.changed.map((path) => style.yellow(`M ${printable(path)}`)),
        ];
        return lines.length === 0 ? "the same content" : lines.join("\n");
      },
    };
  },
};

export const extract: CommandDefinition = {
  name: "bundle extract",
  arguments: [
    BUNDLE,
    { name: "<folder>", text: "absent or empty", completes: "folders" },
    { name: "[path...]", text: "only these paths, and everything below them" },
  ],
  examples: [{ line: "cairn bundle extract docs.ovpack docs guides", text: "extract one folder" }],
  async run(context, input) {
    const paths = input.rest(2);
    const library = await context.library();
    const result = await library.extractBundle(context.absolute(input.required(0)), context.place(input.required(1)), {
      ...context.callOptions(),
      ...(paths.length === 0 ? {} : { paths }),
    });
    return {
      data: result,
      text: () =>
        `${context.style.green("extracted")} ${plural(result.files, "file")}, ${formatBytes(result.bytes)}, into ${printable(result.path)}`,
    };
  },
};

const CONVERTED = new VerbOptions(ConvertBundleOptions.entries);
export const convert: CommandDefinition = {
  name: "bundle convert",
  arguments: [BUNDLE, { name: "<new>", text: "the new file, which must not exist", completes: "files" }],
  options: CONVERTED.definitions,
  examples: [
    { line: "cairn bundle convert docs.ovpack old.ovpack --layout B", text: "convert for OpenViking 0.3" },
    {
      line: "cairn bundle convert all-0.3.ovpack all.ovpack --sessions-to alice --exclude agent",
      text: "convert a backup of OpenViking 0.3 for 0.4, which has neither viking://session nor viking://agent",
    },
  ],
  async run(context, input) {
    const library = await context.library();
    const result = await library.convertBundle(context.absolute(input.required(0)), context.place(input.required(1)), {
      ...context.callOptions(),
      ...CONVERTED.read(context, input),
    });
    return {
      data: result,
      text: () =>
        `${context.style.green("written")} ${printable(result.path)}: layout ${result.layout}, ${plural(result.files, "file")}, ${formatBytes(result.bytes)}\n  content ${result.content_sha256}`,
    };
  },
};
