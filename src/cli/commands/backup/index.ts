import { group } from "../../command.ts";
import { REPOSITORY_OPTIONS } from "./repository.ts";

export const command = group({
  name: "backup",
  harmless: true,
  options: REPOSITORY_OPTIONS,
  examples: [
    { line: "cairn backup init -r /srv/backups", text: "create an empty repository in restic's format" },
    { line: "cairn backup create -r /srv/backups", text: "save the folder, and back that save point up" },
    { line: "cairn backup list -r /srv/backups", text: "list the snapshots" },
  ],
  verbs: {
    init: { summary: "create an empty repository", load: () => import("./init.ts") },
    use: { summary: "remember a repository for a folder, so that -r can be omitted", load: () => import("./use.ts") },
    create: { summary: "back up a save point or folders", load: () => import("./create.ts") },
    stream: {
      summary: "back up stdin, or the output of a command, as one file",
      load: async () => ({ command: (await import("./create.ts")).stream }),
    },
    list: { summary: "list the snapshots of a repository", load: () => import("./list.ts") },
    verify: { summary: "read a repository and check it for damage", load: () => import("./verify.ts") },
    drill: {
      summary: "restore the newest snapshots as a new machine would, prove them, and remove the copies",
      load: async () => ({ command: (await import("./verify.ts")).drill }),
    },
    restore: { summary: "restore a snapshot into a folder, and verify the result", load: () => import("./restore.ts") },
    forget: { summary: "remove snapshots by rules or by id", load: () => import("./forget.ts") },
    tag: { summary: "change the tags of snapshots", load: () => import("./tag.ts") },
    prune: { summary: "free data that no snapshot needs", load: () => import("./prune.ts") },
    copy: { summary: "copy snapshots into another repository", load: () => import("./copy.ts") },
    "import-msgvault": {
      summary: "restore a snapshot of a msgvault repository",
      load: () => import("./import-msgvault.ts"),
    },
    find: { summary: "find files by name, or objects by id, in snapshots", load: () => import("./find.ts") },
    diff: { summary: "compare two snapshots", load: () => import("./diff.ts") },
    stats: { summary: "show the size of a repository", load: () => import("./stats.ts") },
    show: { summary: "list a snapshot's entries or print one of its files", load: () => import("./show.ts") },
    cat: { summary: "print one object of a repository", load: () => import("./cat.ts") },
    rewrite: { summary: "remove paths from snapshots", load: () => import("./rewrite.ts") },
    recover: { summary: "make a snapshot of trees that no snapshot refers to", load: () => import("./recover.ts") },
    repair: { summary: "repair the index, damaged packs or snapshots", load: () => import("./repair.ts") },
    key: { summary: "list, add, remove or change passwords", load: () => import("./key.ts") },
    unlock: { summary: "remove stale locks", load: () => import("./unlock.ts") },
  },
});
