const REMOVE =
  "`cairn cleanup drop POINT` removes a save point, `cairn cleanup purge --path NAME` a file from all points, `cairn release DIR` ends the care for a folder";
const EACH_HOUR = "`cairn service install --timer` saves your folders each hour";
const UPGRADE = "replace the program, for example by `git pull` in its clone: points and settings stay";

/** Words of git, restic, borg and everyday speech, with the equivalent line or a sentence. */
export const WORDS: Readonly<Record<string, string>> = {
  add: "save",
  commit: "save",
  snapshot: "save",
  snapshots: "history",
  stash: "save",
  log: "history",
  info: "status",
  blame: "why PATH",
  reflog: "history --all",
  ls: "show POINT",
  cat: "show POINT:PATH",
  dump: "show POINT:PATH",
  mount: "view POINT",
  checkout: "restore POINT",
  reset: "restore POINT",
  revert: "restore POINT",
  rollback: "restore POINT",
  merge:
    "points cannot be merged: `cairn diff A B` compares two points, and `cairn restore POINT PATH` restores single files",
  config:
    "settings are options of commands: `cairn cleanup --help` for rules, `cairn backup use --help` for the repository, `cairn daemon --help` for the daemon's configuration file",
  clone: "fork",
  branch: "fork",
  worktree: "fork",
  check: "verify",
  fsck: "verify",
  gc: "cleanup",
  mv: "relocate",
  rename: "relocate",
  rm: REMOVE,
  remove: REMOVE,
  delete: REMOVE,
  forget:
    "`cairn release DIR` ends the care for a folder, also if its points are lost; `cairn backup forget` removes snapshots from a repository",
  undelete: "restore head PATH",
  search: "find NAME",
  grep: "`cairn find NAME` finds files by their names, `cairn history --grep TEXT` points by their messages; to search contents, open a point as a folder: `cairn view POINT`",
  open: "ui",
  gui: "ui",
  ignore: "write patterns into the file `.cairnignore`, or use `cairn save --exclude PATTERN`",
  timer: EACH_HOUR,
  schedule: EACH_HOUR,
  uninstall:
    "`cairn agent remove TOOL` and `cairn service uninstall` remove what Cairn installed; then delete the program",
  upgrade: UPGRADE,
  update: UPGRADE,
};
export const WORDS_OF_BACKUP: Readonly<Record<string, string>> = {
  snapshots: "backup list",
  ls: "backup show -R SNAPSHOT",
  dump: "backup show SNAPSHOT:PATH",
  mount:
    "`cairn backup show -R SNAPSHOT` lists a snapshot's files, `cairn backup restore SNAPSHOT --to DIR` writes them; `restic mount` can mount the repository",
  check: "backup verify",
  info: "backup stats",
  extract: "backup restore SNAPSHOT --to DIR",
  delete: "backup forget SNAPSHOT",
  compact: "backup prune",
  backup: "backup create",
};
export const OPTIONS_OF_RESTIC: Readonly<Record<string, string>> = {
  "--target": "--to DIR",
  "--delete": "--in-place",
  "--force": "--reread",
  "--from-repo": "--to REPOSITORY beside -r",
  "--read-data-subset": "--subset PART",
  "--retry-lock": "--lock-timeout TIME",
};

/** Options of earlier versions, behind the beginning of their commands' names, with the line or words that replace them. */
export const FORMER: Readonly<Record<string, string>> = {
  "cleanup --only": "`cairn cleanup drop POINT`",
  "cleanup --path": "`cairn cleanup purge --path PATTERN`",
  "cleanup --text": "`cairn cleanup purge --text TEXT`",
  "cleanup --set-policy": "`cairn cleanup policy` with the same rules",
  "cleanup --clear-policy": "`cairn cleanup policy --none`",
  "cleanup --quota": "`cairn cleanup policy --quota SIZE`",
  "cleanup --keep-trees": "`cairn cleanup policy --keep-trees COUNT`",
  "cleanup --anywhere":
    "`cairn -C DIR cleanup drop POINT`: `cairn workspaces --points` lists the points of all folders",
  "bundle --force": "--on-conflict overwrite",
  "bundle --vectorize": "--vector-mode",
  "bundle -n": "--plan",
  "bundle --leave-out": "--exclude PATH",
  "backup verify --all": "`cairn backup verify`, which checks the whole repository,",
  "backup unlock --remove-all": "--all",
  "backup create --stdin": "`cairn backup stream`",
  "backup create --stdin-filename": "`cairn backup stream --name FILE`",
  "backup create --stdin-from-command": "`cairn backup stream -- COMMAND`",
  "backup copy --to-repo": "--to REPOSITORY",
  "backup key --age-output": "--to FILE",
  "backup drill --folder": "--path DIR",
  "backup import-msgvault --snapshot": "`cairn backup import-msgvault REPOSITORY SNAPSHOT`",
  "context --dimensions": "`dimensions` of the API's `initContext`",
  "context --under": "the URI behind the other words",
  "daemon --config": "the variable CAIRN_CONFIG",
  "daemon --socket": "the variable CAIRN_SOCKET",
  "daemon --state-dir": "the variable CAIRN_STATE_DIR",
  "diff --repository": "-r REPOSITORY",
  "doctor --break-locks": "--force",
  "history --changes": "`cairn diff A B`, or `changes` of the API's `history`,",
  "history --skip": "`skip` of the API's `history`",
  "rewind --only": "--path PATH",
  "serve-context --socket": "--listen PATH",
  "serve-context --api-key-file": "the variable CAIRN_CONTEXT_KEY",
  "serve-repository --max-connections": "the fixed limit of 200 connections",
  "serve --max-file-size": "the fixed limit of 1 GiB",
  "service --agent": "`cairn service token create` without --person",
  "service --lines": "-n COUNT",
  "show --target": "--to FILE",
  "backup show --target": "--to FILE",
  "show --skip": "`skip` of the API's `show`",
  "status --holders": "`holders` of the API's `status`",
  "view --list": "`cairn view` without a point",
  "vm --cpu": "`cpu` of the API's `createMachine`",
  "vm --deadline-ms": "`deadlineMs` of the API's `stopMachine`",
  "vm --machines": "the variable CAIRN_MACHINES",
  "vm --point": "MACHINE@POINT",
  "--pack-size": "the variable CAIRN_PACK_SIZE",
  "--print": "--plan",
  "--keep-within-hourly": "--keep-within hourly:SPAN",
  "--keep-within-daily": "--keep-within daily:SPAN",
  "--keep-within-weekly": "--keep-within weekly:SPAN",
  "--keep-within-monthly": "--keep-within monthly:SPAN",
  "--keep-within-yearly": "--keep-within yearly:SPAN",
  "--keep-undo-within": "--keep-undo SPAN",
  "--to-dir": "--to DIR",
  "--to-tar": "--to FILE.tar",
  "--from-dir": "--from DIR",
  "--from-tar": "--from FILE.tar",
  "--connections": "--jobs COUNT, which opens as many connections,",
  "--dry-run": "--plan",
  "--skip-if-unchanged": "--skip-unchanged",
  "--iinclude": "--include with sets, for example '*.[jJ][pP][gG]'",
  "--iexclude": "--exclude with sets, for example '*.[jJ][pP][gG]'",
  "--blob": "--object blob",
  "--tree": "--object tree",
  "--pack": "--object pack",
  "--to-password-command": "the variable CAIRN_TO_PASSWORD_COMMAND",
  "--new-password-command": "the variable CAIRN_NEW_PASSWORD_COMMAND",
  "--no-color": "the variable NO_COLOR=1",
  "--no-pager": "the variable CAIRN_PAGER=cat",
};

/** Returns the words that replace an option of an earlier version; null if the command never had it. `own`: its options. */
export function formerOption(option: string, name: string, own: readonly string[]): string | null {
  const [, words = ""] =
    Object.entries(FORMER).find(([key]) => {
      const of = key.split(" ");
      return of.pop() === option && name.startsWith(of.join(" "));
    }) ?? [];
  const isKnown = !words.startsWith("--") || own.includes(words.split(/[ :]/)[0]!);
  return words === "" || !isKnown ? null : `use ${words} instead`;
}
