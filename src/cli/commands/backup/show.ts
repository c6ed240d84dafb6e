import type { BackupRepository, ShowBackupOptions, ShowBackupResult } from "../../../contract/index.ts";
import { ReadBackupOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { formatBytes, printable } from "../../render/format.ts";
import { renderListing } from "../../render/listing.ts";
import { renderTable } from "../../render/table.ts";
import { contentOutcome, RECURSIVE, splitTarget, walkOutcome, writtenTo } from "../../shown.ts";
import { FILTER_OPTIONS, readFilter, rowOf } from "./list.ts";
import { openNamed, REPOSITORY_OPTIONS, repositoryOptions } from "./repository.ts";

const ARCHIVE = new VerbOptions(pick(ReadBackupOptions, "archive"), {
  archive: { flags: "--archive <format>", text: "what is there as an archive, a folder with all below it: tar (pax)" },
});

export const command: CommandDefinition = {
  name: "backup show",
  arguments: [
    {
      name: "<snapshot[:path]>",
      text: "an id, a prefix of it, or latest; and a path from the root of what was saved, or a whole one as find says it",
    },
  ],
  options: [
    ...REPOSITORY_OPTIONS,
    ...FILTER_OPTIONS.map((option) => ({ ...option, text: `latest: ${option.text}` })),
    RECURSIVE,
    ...ARCHIVE.definitions,
    {
      flags: "--target <file>",
      text: "write a file's bytes, or the archive, there instead of to stdout: whole or not at all",
    },
    { flags: "--path-b64 <base64>", text: "the path, for a name that is not UTF-8" },
  ],
  examples: [
    { line: "cairn backup show latest -r /srv/backups", text: "what the snapshot is, and its top entries" },
    { line: "cairn backup show latest:src -r /srv/backups", text: "list a folder" },
    { line: "cairn backup show -R latest -r /srv/backups", text: "list everything" },
    {
      line: "cairn backup show latest:src --archive tar -r /srv/backups | tar x -C /tmp",
      text: "a folder as an archive: /tmp/src",
    },
    { line: "cairn backup show 1a2b3c4d:db.sql -r /srv/backups | psql", text: "one file's bytes, proven as they come" },
  ],
  async run(context, input) {
    const [snapshot, path = ""] = splitTarget(input);
    if (snapshot === "") throw usage("which snapshot? name it before the colon: latest:PATH");
    const options: ShowBackupOptions = { ...context.callOptions(), ...readFilter(context, input) };
    const archive = ARCHIVE.read(context, input);
    const isArchive = archive.archive !== undefined;
    const target = input.text("target");
    if (input.flag("recursive") && (isArchive || target !== undefined))
      throw usage("-R lists; it goes with neither --archive nor --target");
    if (isArchive && target === undefined && (context.globals.json || process.stdout.isTTY))
      throw usage("an archive goes into a pipe, or into a file: --target FILE");
    const repository = await openNamed(context, await repositoryOptions(context, input));
    let isReadLater = false;
    try {
      const shown = await repository.show(snapshot, path, options);
      const { snapshot_id: id } = shown.snapshot;
      if (input.flag("recursive")) {
        isReadLater = true;
        const entries = closing(repository, repository.walk(id, path, options));
        return await walkOutcome(context, { shown, entries, head: async () => snapshotLines(context, shown) });
      }
      const content = (): AsyncIterable<Uint8Array> => repository.read(id, path, { ...options, ...archive });
      if (target !== undefined && (isArchive || shown.kind === "file")) {
        const written = await writtenTo(context.place(target), content());
        return {
          data: { ...shown, ...written },
          text: () => `${formatBytes(written.bytes)} in ${printable(written.target)}`,
        };
      }
      if (target !== undefined) throw usage(`a ${shown.kind} goes into a file as an archive only: --archive tar`);
      if (shown.kind !== "file" && !isArchive)
        return { data: shown, paged: true, text: async () => render(context, shown) };
      const read = (): AsyncIterable<Uint8Array> => closing(repository, content());
      const outcome = isArchive ? { data: shown, content: read() } : contentOutcome(context, shown, read);
      isReadLater = true;
      return outcome;
    } finally {
      if (!isReadLater) await repository.close();
    }
  },
};

/** Passes pieces on; the repository is closed when nobody takes any more. */
async function* closing<T>(repository: BackupRepository, content: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* content;
  } finally {
    await repository.close();
  }
}

async function render(context: Context, shown: ShowBackupResult): Promise<string> {
  return [...(await snapshotLines(context, shown)), ...(await renderListing(shown, context.style))].join("\n");
}

/** Returns the head of a snapshot that is shown whole. */
async function snapshotLines({ style }: Context, { path, snapshot }: ShowBackupResult): Promise<string[]> {
  return path === "" ? [...(await renderTable([rowOf(snapshot, style, Date.now())], [3, 4])), ""] : [];
}
