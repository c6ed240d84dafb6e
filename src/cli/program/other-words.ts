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
  "--from-repo": "--to-repo REPOSITORY beside -r",
  "--read-data-subset": "--subset PART",
  "--retry-lock": "--lock-timeout TIME",
};

/** Options of earlier versions: for the commands whose names begin with a word, the line or words that replace them. */
const FORMER: readonly (readonly [commands: string, options: Readonly<Record<string, string>>])[] = [
  [
    "cleanup",
    {
      "--only": "`cairn cleanup drop POINT`",
      "--path": "`cairn cleanup purge --path PATTERN`",
      "--text": "`cairn cleanup purge --text TEXT`",
      "--set-policy": "`cairn cleanup policy` with the same rules",
      "--clear-policy": "`cairn cleanup policy --none`",
      "--quota": "`cairn cleanup policy --quota SIZE`",
      "--keep-trees": "`cairn cleanup policy --keep-trees COUNT`",
      "--anywhere": "`cairn -C DIR cleanup drop POINT`: `cairn workspaces --points` lists the points of all folders",
    },
  ],
  [
    "bundle",
    {
      "--force": "--on-conflict overwrite",
      "--vectorize": "--vector-mode",
      "-n": "--plan",
    },
  ],
  [
    "",
    {
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
    },
  ],
];

/** Returns the words that replace an option of an earlier version; null if the command never had it. `own`: its options. */
export function formerOption(option: string, name: string, own: readonly string[]): string | null {
  const found = FORMER.find(([commands, options]) => name.startsWith(commands) && Object.hasOwn(options, option));
  const words = found?.[1][option] ?? "";
  const isKnown = !words.startsWith("--") || own.includes(words.split(/[ :]/)[0]!);
  return words === "" || !isKnown ? null : `use ${words} instead`;
}
