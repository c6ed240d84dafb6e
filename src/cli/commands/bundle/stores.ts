import {
  ExportBundleOptions,
  type ExportBundleResult,
  ImportBundleOptions,
  type ImportBundleResult,
  RestoreContextOptions,
} from "../../../contract/context.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { formatBytes, plural, printable } from "../../render/format.ts";

const NEW = { name: "<new>", text: "the new file, which must not exist", completes: "files" } as const;
const BUNDLE = { name: "<bundle>", text: "the bundle file", completes: "files" } as const;

const PACKED = new VerbOptions(ExportBundleOptions.entries);

export const exportSubtree: CommandDefinition = {
  name: "bundle export",
  arguments: [
    { name: "<uri>", text: "the part to export, for example viking://resources/docs, or a whole scope" },
    NEW,
  ],
  options: PACKED.definitions,
  examples: [{ line: "cairn bundle export viking://resources/docs docs.ovpack", text: "export from the store here" }],
  async run(context, input) {
    const library = await context.library();
    const target = context.place(input.required(1));
    return packed(
      context,
      await library.exportBundle(context.folder(), input.required(0), target, packing(context, input)),
    );
  },
};

export const backup: CommandDefinition = {
  name: "bundle backup",
  harmless: true,
  arguments: [NEW],
  options: PACKED.definitions,
  examples: [{ line: "cairn bundle backup all.ovpack", text: "export every scope of the store here" }],
  async run(context, input) {
    const library = await context.library();
    const target = context.place(input.required(0));
    return packed(context, await library.backupContext(context.folder(), target, packing(context, input)));
  },
};

const IMPORTED = new VerbOptions(ImportBundleOptions.entries);
export const importSubtree: CommandDefinition = {
  name: "bundle import",
  arguments: [
    BUNDLE,
    { name: "<parent>", text: "parent to import below, for example viking://resources; viking:// for a whole scope" },
  ],
  options: IMPORTED.definitions,
  examples: [
    { line: "cairn bundle import docs.ovpack viking://resources", text: "import as viking://resources/docs" },
    {
      line: "cairn bundle import docs.ovpack viking://resources --on-conflict overwrite --plan",
      text: "report what would be replaced",
    },
  ],
  async run(context, input) {
    const library = await context.library();
    const file = context.absolute(input.required(0));
    return brought(
      context,
      await library.importBundle(context.folder(), file, input.required(1), bringing(IMPORTED, context, input)),
    );
  },
};

const RESTORED = new VerbOptions(RestoreContextOptions.entries);
export const restore: CommandDefinition = {
  name: "bundle restore",
  arguments: [BUNDLE],
  options: RESTORED.definitions,
  examples: [{ line: "cairn bundle restore all.ovpack", text: "restore into a new store" }],
  async run(context, input) {
    const library = await context.library();
    const options = bringing(RESTORED, context, input);
    return brought(
      context,
      await library.restoreContext(context.folder(), context.absolute(input.required(0)), options),
    );
  },
};

function packing(context: Context, input: Input): ExportBundleOptions {
  return { ...context.callOptions(), ...PACKED.read(context, input) };
}

function packed({ style }: Context, result: ExportBundleResult): Outcome {
  return {
    data: result,
    text: () =>
      `${style.green("packed")} ${printable(result.uri)}: ${plural(result.files, "file")}, ${formatBytes(result.bytes)}, ${plural(result.index_records, "index record")}, into ${printable(result.path)}\n  content ${result.content_sha256}`,
  };
}

function bringing(options: typeof IMPORTED | typeof RESTORED, context: Context, input: Input): RestoreContextOptions {
  return { ...context.callOptions(), ...options.read(context, input) };
}

function brought({ style }: Context, result: ImportBundleResult): Outcome {
  const {
    uri,
    skipped,
    dry_run: isDry,
    files,
    bytes,
    vectors,
    vectors_from: from,
    replaced,
    is_merged: isMerged,
  } = result;
  const made =
    from === "bundle" ? "its own vectors" : from === "none" ? "no vectors" : `${plural(vectors, "vector")} made`;
  const what = `${plural(files, "file")}, ${formatBytes(bytes)}`;
  const lines = skipped
    ? [`${style.yellow("left")} ${printable(uri)} as it is: it exists already`]
    : isDry
      ? [`would import ${what} to ${style.bold(printable(uri))}, vectors from: ${from}`]
      : [`${style.green("imported")} ${what} to ${style.bold(printable(uri))}, ${made}`];
  const [would, did] = isMerged ? ["would write into", "wrote into"] : ["would replace", "replaced"];
  const places = replaced.map((each) => `  ${isDry ? would : did} ${printable(each)}`);
  return { data: result, text: () => [...lines, ...places].join("\n") };
}
