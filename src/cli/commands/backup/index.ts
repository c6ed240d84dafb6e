import { group } from "../../command.ts";
import { REPOSITORY_OPTIONS } from "./repository.ts";

export const command = group({
  name: "backup",
  options: REPOSITORY_OPTIONS,
  examples: [
    { line: "cairn backup init -r /srv/backups", text: "make an empty repository in restic's format" },
    { line: "cairn backup create -r /srv/backups", text: "save the folder, and put that save point into it" },
    { line: "cairn backup list -r /srv/backups", text: "what there is" },
  ],
  verbs: {
    init: { summary: "make an empty repository", load: () => import("./init.ts") },
    use: { summary: "keep a repository for a folder, so that no line has to name it", load: () => import("./use.ts") },
    create: { summary: "put a save point, a folder or a stream into a repository", load: () => import("./create.ts") },
    list: { summary: "list the snapshots of a repository", load: () => import("./list.ts") },
    verify: { summary: "read a repository and prove it whole", load: () => import("./verify.ts") },
    restore: { summary: "write a snapshot into a folder, and read it again", load: () => import("./restore.ts") },
    forget: { summary: "remove snapshots by rules or by id", load: () => import("./forget.ts") },
    tag: { summary: "give snapshots other tags", load: () => import("./tag.ts") },
    prune: { summary: "free what no snapshot needs", load: () => import("./prune.ts") },
    copy: { summary: "bring snapshots into another repository", load: () => import("./copy.ts") },
    find: { summary: "look for a name or an object in all snapshots", load: () => import("./find.ts") },
    diff: { summary: "compare two snapshots", load: () => import("./diff.ts") },
    stats: { summary: "how much is in a repository", load: () => import("./stats.ts") },
    show: { summary: "list a snapshot's entries or print one of its files", load: () => import("./show.ts") },
    cat: { summary: "print one object of a repository", load: () => import("./cat.ts") },
    rewrite: { summary: "take paths out of snapshots", load: () => import("./rewrite.ts") },
    recover: { summary: "make snapshots of what no snapshot leads to any more", load: () => import("./recover.ts") },
    repair: { summary: "mend an index, save what is sound in damaged packs", load: () => import("./repair.ts") },
    key: { summary: "list, add, remove or change the passwords that open it", load: () => import("./key.ts") },
    unlock: { summary: "remove locks that processes left", load: () => import("./unlock.ts") },
  },
});
