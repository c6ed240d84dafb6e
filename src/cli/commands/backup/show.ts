import type {
  BackupRepository,
  PathInput,
  ShowBackupOptions,
  ShowBackupResult,
  SnapshotFilter,
} from "../../../contract/index.ts";
import { ReadBackupOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { type Input, usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { renderListing } from "../../render/listing.ts";
import { renderTable } from "../../render/table.ts";
import {
  contentOutcome,
  PATH_B64,
  RECURSIVE,
  requireArchivePlace,
  splitTarget,
  TARGET,
  walkOutcome,
  writtenOutcome,
} from "../../shown.ts";
import { FILTER_OPTIONS, readFilter, rowOf } from "./list.ts";
import { openNamed, REPOSITORY_OPTIONS, repositoryOptions } from "./repository.ts";

const ARCHIVE = new VerbOptions(pick(ReadBackupOptions, "archive"));

export const command: CommandDefinition = {
  name: "backup show",
  answers: true,
  arguments: [
    {
      name: "<snapshot[:path]>",
      text: "a snapshot (id, prefix, or latest), and a path from the snapshot's root, or an absolute path as `find` prints it",
    },
  ],
  options: [...REPOSITORY_OPTIONS, ...FILTER_OPTIONS, RECURSIVE, ...ARCHIVE.definitions, TARGET, PATH_B64],
  examples: [
    { line: "cairn backup show latest -r /srv/backups", text: "the snapshot's facts and its top entries" },
    { line: "cairn backup show latest:src -r /srv/backups", text: "list a folder" },
    { line: "cairn backup show -R latest -r /srv/backups", text: "list everything" },
    {
      line: "cairn backup show latest:src --archive tar -r /srv/backups | tar x -C /tmp",
      text: "a folder as an archive: /tmp/src",
    },
    {
      line: "cairn backup show 1a2b3c4d:db.sql -r /srv/backups | psql",
      text: "print one file's bytes, verified while they are read",
    },
  ],
  async run(context, input) {
    const [snapshot, path = ""] = splitTarget(input);
    if (snapshot === "") throw usage("no snapshot is named before the colon: for example latest:PATH");
    return showSnapshot(context, input, { snapshot, path, filter: readFilter(context, input) });
  },
};

/** Shows a place in a snapshot of the repository that the line names, else of the kept one. */
export async function showSnapshot(
  context: Context,
  input: Input,
  { snapshot, path, filter }: { snapshot: string; path: PathInput; filter: SnapshotFilter },
): Promise<Outcome> {
  const options: ShowBackupOptions = { ...context.callOptions(), ...filter };
  const archive = ARCHIVE.read(context, input);
  const isArchive = archive.archive !== undefined;
  const target = input.text("to");
  requireArchivePlace(context, input, isArchive);
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
    if (target !== undefined) return await writtenOutcome(context, { shown, file: target, isArchive }, content);
    if (shown.kind !== "file" && !isArchive)
      return { data: shown, paged: true, text: async () => render(context, shown) };
    const read = (): AsyncIterable<Uint8Array> => closing(repository, content());
    const outcome = isArchive ? { data: shown, content: read() } : contentOutcome(context, shown, read);
    isReadLater = true;
    return outcome;
  } finally {
    if (!isReadLater) await repository.close();
  }
}

/** Passes the pieces on, and closes the repository when the reader stops. */
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

/** Returns the head lines for a whole snapshot. */
async function snapshotLines({ style }: Context, { path, snapshot }: ShowBackupResult): Promise<string[]> {
  return path === "" ? [...(await renderTable([rowOf(snapshot, style, Date.now())], [3, 4])), ""] : [];
}
