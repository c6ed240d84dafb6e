import { CairnError } from "../../../errors.ts";
import type { BackupRepository, CopyBackupsResult } from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { formatBytes, formatDuration, plural, printable } from "../../render/format.ts";
import { FILTER_OPTIONS, readChoice } from "./list.ts";
import { openNamed, otherRepositoryOptions, COMPRESSION, REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { CopyBackupsOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(CopyBackupsOptions, "dryRun"));

export const command: CommandDefinition = {
  name: "backup copy",
  arguments: [{ name: "[snapshots...]", text: "only these snapshots; default: all that match the filters" }],
  options: [
    ...REPOSITORY_OPTIONS,
    ...COMPRESSION,
    ...FILTER_OPTIONS,
    { flags: "--to <repository>", text: "the existing repository to copy into" },
    {
      flags: "--to-password-file <file>",
      text: "file with the password of --to (also CAIRN_TO_PASSWORD_FILE, or CAIRN_TO_PASSWORD_COMMAND)",
    },
    ...OPTIONS.definitions,
  ],
  examples: [
    {
      line: "cairn backup copy -r /srv/backups --to /mnt/usb/backups",
      text: "copy every snapshot that the target does not have yet",
    },
    {
      line: "cairn backup copy -r /srv/backups --to s3:https://host/bucket latest",
      text: "copy the newest snapshot",
    },
  ],
  async run(context, input) {
    const options = { ...context.callOptions(), ...readChoice(context, input), ...OPTIONS.read(context, input) };
    const other = otherRepositoryOptions(context, input);
    return withRepository(context, input, async (repository) => {
      const target = await openNamed(context, other);
      try {
        const result = await repository.copyTo(target, options);
        const outcome: Outcome = { data: result, text: () => render(context, result) };
        if (result.not_copied.length > 0) outcome.error = notAll(repository, result);
        return outcome;
      } finally {
        await target.close();
      }
    });
  },
};

function notAll({ info }: BackupRepository, { not_copied: lacking }: CopyBackupsResult): CairnError {
  const [lack, were] = lacking.length === 1 ? ["lacks", "was"] : ["lack", "were"];
  const message = `${plural(lacking.length, "snapshot")} of ${info.location} ${lack} some data and ${were} not copied`;
  return new CairnError("damaged", message, {
    hint: "run `cairn backup verify` in the source repository to see what is lost; `cairn backup repair snapshots` makes new snapshots without the lost data, which can be copied",
  });
}

function render({ style }: Context, result: CopyBackupsResult): string {
  const { copied, present, added } = result;
  const size = `${plural(added.data_blobs + added.tree_blobs, "blob")}, ${formatBytes(added.bytes)}`;
  const there = present === 0 ? "" : `; ${plural(present, "snapshot")} already in the target`;
  const lacking = result.not_copied.map(
    ({ snapshot_id: id, detail }) => `${style.red("not copied")} ${id.slice(0, 8)}: ${printable(detail)}`,
  );
  const into = `into ${printable(result.location)}: ${size}, ${formatDuration(result.duration_ms)}${there}`;
  const done = `${style.green("copied")} ${plural(copied.length, "snapshot")} ${into}`;
  const again =
    added.packs > 0
      ? `${style.green("stored again")} missing data of existing copies ${into}`
      : `nothing to copy${there}`;
  const line = copied.length === 0 ? again : done;
  return [...lacking, result.dry_run ? `would copy ${plural(copied.length, "snapshot")}: ${size}${there}` : line].join(
    "\n",
  );
}
