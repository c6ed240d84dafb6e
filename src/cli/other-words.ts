/** What people who come from other tools (restic, borg, git) call a command or an option, by the line that does it here. */

export const OTHER_COMMANDS: Readonly<Record<string, string>> = {
  commit: "cairn save",
  create: "cairn save",
  snapshot: "cairn save",
  log: "cairn history",
  list: "cairn history",
  snapshots: "cairn history",
  ls: "cairn show POINT",
  cat: "cairn show POINT:PATH",
  checkout: "cairn restore POINT",
  reset: "cairn restore POINT",
  revert: "cairn restore POINT",
  rollback: "cairn restore POINT",
  clone: "cairn fork",
  mount: "cairn view",
  check: "cairn verify",
  fsck: "cairn verify",
  delete: "cairn cleanup --only POINT",
  remove: "cairn cleanup --only POINT",
  rm: "cairn cleanup --only POINT",
  drop: "cairn cleanup --only POINT",
  forget: "cairn cleanup",
  gc: "cairn cleanup",
  prune: "cairn cleanup",
  move: "cairn relocate OLD NEW",
  mv: "cairn relocate OLD NEW",
  version: "cairn --version",
};

export const OTHER_VERBS: Readonly<Record<string, string>> = {
  backup: "cairn backup create",
  save: "cairn backup create",
  snapshots: "cairn backup list",
  history: "cairn backup list",
  log: "cairn backup list",
  ls: "cairn backup show",
  dump: "cairn backup show",
  check: "cairn backup verify",
  delete: "cairn backup forget ID",
  remove: "cairn backup forget ID",
  rm: "cairn backup forget ID",
  compact: "cairn backup prune",
  gc: "cairn backup prune",
  mount: "cairn backup restore",
  extract: "cairn backup restore",
  "rebuild-index": "cairn backup repair index",
  info: "cairn backup stats",
};

const OPTIONS: Readonly<Record<string, string>> = {
  "--target": "--to",
  "--repository": "--repo",
  "--verbose": "--progress plain",
  "--dry-run": "--plan",
};

/** What commander says of a word that it does not know, after its name: null where no other tool is known to have it. */
export function ourWordFor(code: string, message: string, group: string | undefined): string | null {
  const [, word = ""] = /'([^']*)'/.exec(message) ?? [];
  const words =
    code === "commander.unknownOption"
      ? OPTIONS
      : code !== "commander.unknownCommand"
        ? {}
        : group === "backup"
          ? OTHER_VERBS
          : OTHER_COMMANDS;
  return Object.hasOwn(words, word) ? words[word]! : null;
}
