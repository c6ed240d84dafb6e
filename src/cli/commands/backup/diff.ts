import type { DiffBackupsResult } from "../../../verbs/schemas.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { formatCount, formatCounts, printable } from "../../render/format.ts";
import { splitSnapshot } from "../../shown.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

export const command: CommandDefinition = {
  name: "backup diff",
  answers: true,
  arguments: [
    {
      name: "<from[:folder]>",
      text: "a snapshot, or a folder in it: a path from the snapshot's root, or an absolute path",
    },
    { name: "<to[:folder]>", text: "another snapshot" },
  ],
  options: [
    ...REPOSITORY_OPTIONS,
    { flags: "--metadata", text: "also list entries that differ only in mode, owner, times or attributes" },
  ],
  examples: [
    { line: "cairn backup diff -r /srv/backups 1a2b3c4d latest", text: "list added, removed and changed entries" },
    {
      line: "cairn backup diff -r /srv/backups 1a2b3c4d:src latest:src",
      text: "compare one folder, with paths relative to it",
    },
  ],
  async run(context, input) {
    const [from, fromSubfolder] = splitSnapshot(input.required(0));
    const [to, toSubfolder] = splitSnapshot(input.required(1));
    const options = { ...context.callOptions(), fromSubfolder, toSubfolder };
    return withRepository(context, input, async (repository) => {
      const result = await repository.diff(from, to, options);
      return { data: result, paged: true, text: () => render(context, result, input.flag("metadata")) };
    });
  },
};

const SIGNS = { added: "+", removed: "-", modified: "~" } as const;

/**
 * Other differences change a file's content. A directory's time changes with every file in it, so it does not count.
 */
const METADATA: ReadonlySet<string> = new Set(["mode", "owner", "times", "xattrs"]);

function render({ style }: Context, { entries: all, truncated }: DiffBackupsResult, isMetadataShown: boolean): string {
  const entries = all.filter(
    ({ change, aspects }) =>
      isMetadataShown || change !== "modified" || aspects.some((aspect) => !METADATA.has(aspect)),
  );
  const colours = { added: style.green, removed: style.red, modified: style.yellow };
  const lines = entries.map(({ change, kind, path }) => {
    const slash = kind === "directory" ? "/" : "";
    return colours[change](`${SIGNS[change]} ${printable(path)}${slash}`);
  });
  const counts = { added: 0, modified: 0, removed: 0 };
  for (const { change } of entries) counts[change]++;
  const hidden = all.length - entries.length;
  const rest = `${truncated ? ", and more" : ""}${hidden === 0 ? "" : `; ${formatCount(hidden)} differ in metadata only: --metadata lists them`}`;
  return [...lines, style.dim(`${formatCounts(counts)}${rest}`)].join("\n");
}
