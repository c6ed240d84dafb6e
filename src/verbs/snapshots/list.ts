import { BackupList, ListBackupsOptions } from "../../contract/snapshots.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const list = repositoryVerb({
  about: "Lists snapshots, oldest first.",
  options: ListBackupsOptions,
  output: BackupList,
  command: "backup list",
  run: async (...given) => {
    const list = await (await import("../../backup/open/snapshots.ts")).listBackups(...given);
    return (await import("../../backup/restore/receipt.ts")).withCountedRows(list);
  },
});
