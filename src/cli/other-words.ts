/** What people who come from other tools (restic, borg, kopia, git) call a command or an option, by the line that does it here. */

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
  ls: "cairn backup show -R",
  dump: "cairn backup show",
  check: "cairn backup verify --quick (without it every byte is read)",
  delete: "cairn backup forget ID",
  remove: "cairn backup forget ID",
  rm: "cairn backup forget ID",
  compact: "cairn backup prune",
  gc: "cairn backup prune",
  extract: "cairn backup restore",
  recreate: "cairn backup rewrite --exclude PATTERN",
  transfer: "cairn backup copy",
  snapshot: "cairn backup create",
  expire: "cairn backup forget",
  policy: "cairn backup forget --keep-daily 14 (rules are given at each call)",
  maintenance: "cairn backup prune",
  "rebuild-index": "cairn backup repair index",
  info: "cairn backup stats",
  "break-lock": "cairn backup unlock",
};

const NO_MOUNT =
  "`cairn backup show -R SNAPSHOT` lists, `show SNAPSHOT:FILE` prints, and `find` looks into all of them; restic mounts the same repository";
const SERVED = "`cairn serve-repository` serves a folder to other machines";

/** Verbs that have nothing of their own here. */
const MISSING_VERBS: Readonly<Record<string, string>> = {
  mount: NO_MOUNT,
  umount: NO_MOUNT,
  serve: SERVED,
  server: SERVED,
  rename: "snapshots have ids, and no names; `cairn backup tag` gives them tags",
  config: "what a repository is does not change; `cairn backup key` changes its passwords",
  "export-tar": "`cairn backup restore --to DIR` writes a folder, which tar packs",
  "import-tar": "what tar unpacks is backed up as any folder is",
  repository:
    "-r names one at each call (or CAIRN_REPOSITORY): `cairn backup init` makes it, `cairn backup copy` brings snapshots into another",
  "with-lock": "each call takes its own lock",
  migrate: "repositories of version 1 and 2 are used as they are; restic migrate makes the one into the other",
  cache:
    "what can be made again lies in ~/.cache/cairn (XDG_CACHE_HOME names another place), and may be removed at any time",
  "self-update": "Cairn is renewed by what installed it",
};

/** What stands for an option here; of several, the first that the command has. */
const OPTIONS: Readonly<Record<string, readonly string[]>> = {
  "--target": ["--to"],
  "--repository": ["--repo"],
  "--verbose": ["--progress plain"],
  "-v": ["--progress plain"],
  "--dry-run": ["--plan"],
  "-n": ["--dry-run", "--plan"],
  "-p": ["--password-file"],
  "-H": ["--host"],
  "--last": ["--latest 1"],
  "--retry-lock": ["--lock-timeout"],
  "--lock-wait": ["--lock-timeout"],
  "--force": ["--reread"],
  "--ignore-inode": ["--reread"],
  "--read-data-subset": ["--subset"],
  "--exclude-from": ["--exclude-file"],
  "--comment": ["--message"],
  "--description": ["--message"],
  "--keep-latest": ["--keep-last"],
  "--keep-annual": ["--keep-yearly"],
  "--parallel": ["--jobs", "--connections"],
  "--upload-limit-mb": ["--limit-upload"],
  "--upload-ratelimit": ["--limit-upload"],
  "--remote-ratelimit": ["--limit-upload"],
  "--archives-only": ["--quick"],
  "--repository-only": ["--quick"],
};

const CASE =
  "patterns of --exclude and --exclude-file tell upper and lower case apart; a set fits both: *.[jJ][pP][gG]";
const ONE_FOLDER =
  "name one folder, and what of it is not wanted with --exclude; other folders are snapshots of their own";
const DIRECTION =
  "-r names the source here and --to-repo the target, with --to-password-file: the other way round than in restic";
const AS_THE_SNAPSHOT =
  "--in-place makes the workspace's folder equal to the snapshot, and saves it first; what the snapshot does not have goes, unless --keep-present is given";
const PATTERN_EACH = "patterns are given one by one: --include and --exclude may be repeated";
const CACHE = "the cache lies in ~/.cache/cairn; XDG_CACHE_HOME names another place";
const ALWAYS_COMPRESSED = "what compresses is always compressed, and how packs are cut is not chosen";
const FREES_BY_SHARE =
  "--max-unused is the share of a pack that may be unused before that is written anew, in percent: 0 frees to the last byte";

const NO_NAMES =
  "snapshots have ids and tags, and no names: --host, --path and --tag choose; what one call named is another's --tag";
const IN_JSON = "--json gives all that is known of each snapshot";
const WHAT_CHANGED = "`cairn backup diff` says what changed between two snapshots, `cairn status` what would be saved";
const OF_FORGET = "rules that keep are of `cairn backup forget --prune`";
const ENCRYPTED = "a repository is always encrypted, and its key lies in it: the password opens it";

type Notes = Readonly<Record<string, string>>;

/** Options that are something else here, or the default, by verb; those of `backup` are of all its verbs. */
export const NOTES: Readonly<Record<string, Notes>> = {
  backup: {
    "--cacert": "the variable RESTIC_CACERT names the file of certificates",
    "--no-cache": CACHE,
    "--cache-dir": CACHE,
    "--no-lock": "what only reads takes its lock where it may write one, and goes on without it elsewhere",
    "--repository-file": 'a file gives the repository so: -r "$(cat FILE)"',
    "--compression": ALWAYS_COMPRESSED,
    "--pack-size": ALWAYS_COMPRESSED,
    "-o": "storages are told by variables and by ssh's own configuration, and --connections bounds their calls",
    "--option": "storages are told by variables and by ssh's own configuration, and --connections bounds their calls",
  },
  "": { "-v": "here it is: -V, --version" },
  save: {
    "--one-file-system": "it is so by default; --cross-mounts goes into what is mounted inside",
    "-x": "it is so by default; --cross-mounts goes into what is mounted inside",
    "--dry-run": "`cairn status` says what has changed, and saves nothing",
    "-n": "`cairn status` says what has changed, and saves nothing",
  },
  "backup create": {
    "--iexclude": CASE,
    "--iexclude-file": CASE,
    "--files-from": ONE_FOLDER,
    "--files-from-raw": ONE_FOLDER,
    "--files-from-verbatim": ONE_FOLDER,
    "--one-file-system": "it is so by default; --cross-mounts goes into what is mounted inside",
    "-x": "it is so by default; --cross-mounts goes into what is mounted inside",
    "--time": "a snapshot has the time of its save point; an older one is backed up by its name: head~3",
    "--parent": "what a folder was before is known from its own save points; --reread reads every file",
    "--stats": "what was added is always said",
    "-s": "what was added is always said",
    "--list": WHAT_CHANGED,
    "--filter": WHAT_CHANGED,
    "-e": "here it is: --exclude, whose patterns are those of a .cairnignore",
    "--pattern": "here it is: --exclude, whose patterns are those of a .cairnignore",
    "--patterns-from": "here it is: --exclude-file, whose lines are those of a .cairnignore",
    "--timestamp": "a snapshot has the time of its save point; an older one is backed up by its name: head~3",
    "--content-from-command": "here it is: --stdin-from-command",
    "--read-concurrency": "how many files are read at once is not chosen; --connections bounds the uploads",
  },
  "backup list": {
    "--short": IN_JSON,
    "--format": IN_JSON,
    "--json-lines": IN_JSON,
    "-a": NO_NAMES,
    "-P": NO_NAMES,
    "--glob-archives": NO_NAMES,
    "--prefix": NO_NAMES,
    "--compact": "each snapshot is one line, and --json gives all of it",
    "--group-by": "lists are not grouped: --host, --path and --tag choose, and --latest 1 is the newest of each folder",
  },
  "backup show": {
    "-l": "mode, owner, time and size are always shown",
    "--long": "mode, owner, time and size are always shown",
  },
  "backup find": {
    "-l": "the size is always shown, and --json gives all of it",
    "--long": "the size is always shown, and --json gives all of it",
  },
  "backup verify": {
    "--read-data": "it is so by default: every pack is read, unless --quick or --subset says otherwise",
    "--verify-data": "it is so by default: every pack is read, unless --quick or --subset says otherwise",
    "--repair": "`cairn backup repair` mends index, packs and snapshots, each with `--plan` first",
    "--with-cache": "a verification sees what the storage itself gives",
  },
  "backup restore": {
    "--stdout": "here it is: cairn backup show SNAPSHOT:FILE",
    "--strip-components": "SNAPSHOT:FOLDER is what lies in FOLDER, which comes directly into --to",
    "--list": "--dry-run says how much would be written, and `cairn backup show -R SNAPSHOT` what",
    "--verify": "it is so by default: what was written is read again, unless --no-prove is given",
    "--overwrite": AS_THE_SNAPSHOT,
    "--delete": AS_THE_SNAPSHOT,
    "--include-file": PATTERN_EACH,
    "--exclude-file": PATTERN_EACH,
    "--iinclude-file": PATTERN_EACH,
    "--iexclude-file": PATTERN_EACH,
  },
  "backup rewrite": {
    "--exclude-file": "patterns are given one by one: --exclude may be repeated",
    "--iexclude-file": "patterns are given one by one: --exclude may be repeated",
  },
  "backup init": {
    "--encryption": ENCRYPTED,
    "-e": ENCRYPTED,
    "--append-only": "a server is: `cairn serve-repository --append-only`",
    "--storage-quota":
      "how large a repository grows is the file system's matter; `cairn backup stats` says how large it is",
    "--from-repo": "what cuts large files is this user's own, for all new repositories: nothing has to be taken over",
    "--copy-chunker-params":
      "what cuts large files is this user's own, for all new repositories: nothing has to be taken over",
    "--repository-version": "new repositories are of version 2",
  },
  "backup copy": {
    "--from-repo": DIRECTION,
    "--repo2": DIRECTION,
    "--from-repository-file": DIRECTION,
    "--from-password-file": DIRECTION,
    "--from-password-command": DIRECTION,
    "--password-file2": DIRECTION,
  },
  "backup forget": {
    "--compact": "each snapshot is one line, and --json gives all of it",
    "--max-unused": "`cairn backup prune` takes it; --prune goes by what is its default",
    "--list": "what is kept and what goes is always said",
    "-d": "here it is: --keep-daily",
    "-w": "here it is: --keep-weekly",
    "-m": "here it is: --keep-monthly",
    "-y": "here it is: --keep-yearly",
    "-H": "for borg's -H here it is: --keep-hourly; restic's is --host",
    "-a": NO_NAMES,
    "-P": NO_NAMES,
    "--glob-archives": NO_NAMES,
    "--prefix": NO_NAMES,
    "--keep-secondly": "here it is: --keep-last, or --keep-within",
    "--keep-minutely": "here it is: --keep-last, or --keep-within",
  },
  "backup prune": {
    "--keep-within": OF_FORGET,
    "--keep-last": OF_FORGET,
    "--keep-hourly": OF_FORGET,
    "--keep-daily": OF_FORGET,
    "--keep-weekly": OF_FORGET,
    "--keep-monthly": OF_FORGET,
    "--keep-yearly": OF_FORGET,
    "--list": OF_FORGET,
    "--max-repack-size": FREES_BY_SHARE,
    "--repack-small": "small packs are merged by every prune",
    "--repack-uncompressed": "what is there stays as it was compressed",
    "--repack-cacheable-only": FREES_BY_SHARE,
  },
  "backup stats": { "--mode": "all of it is said at once: what restoring takes, and what the repository holds" },
};

/** Words that stand where a verb wants other ones, by verb. */
const NOT_SNAPSHOTS: Notes = {
  keys: "cairn backup key list",
  key: "cairn backup key list",
  snapshots: "cairn backup list",
  locks: "cairn backup unlock (it counts them, and removes those whose process is gone)",
  packs: "cairn backup stats",
  index: "cairn backup stats",
  blobs: "cairn backup stats",
};

/** The line for what `backup list` lists of other things in restic; null for what may be a snapshot. */
export function lineForList(word: string): string | null {
  return Object.hasOwn(NOT_SNAPSHOTS, word) ? NOT_SNAPSHOTS[word]! : null;
}

const KEY_FILE =
  "the keys lie in the repository's folder keys, each sealed by its password: a copy of that folder is a copy of them";
const KEY_ACTIONS: Notes = {
  export: KEY_FILE,
  import: KEY_FILE,
  "change-passphrase": "here it is: cairn backup key passwd",
  "change-password": "here it is: cairn backup key passwd",
};

/** What to do about an action of `backup key` that borg or kopia has. */
export function lineForKey(action: string): string | undefined {
  return own(KEY_ACTIONS, action);
}

export interface Unknown {
  /** As commander calls it, and what it says. */
  code: string;
  message: string;
  /** Of the command, with its group's; or of the group. */
  name: string | undefined;
  /** Whether the command has an option. */
  takes: (option: string) => boolean;
}

/** What to do about a word that is not known here: null where no other tool is known to have it. */
export function answerTo({ code, message, name, takes }: Unknown): string | null {
  const [, whole = ""] = /'([^']*)'/.exec(message) ?? [];
  if (code === "commander.excessArguments" && name === "backup show")
    return "a path in a snapshot stands behind its name: latest:/path";
  if (code === "commander.unknownCommand") return verbFor(whole, name === "backup");
  if (code !== "commander.unknownOption") return null;
  const [word = ""] = whole.split("=");
  for (const group of name?.startsWith("backup ") === true ? [name, "backup"] : [name ?? ""]) {
    const note = own(own(NOTES, group) ?? {}, word);
    if (note !== undefined) return note;
  }
  const ours = own(OPTIONS, word)?.find((each) => takes(each.split(" ")[0]!));
  return ours === undefined ? null : `here it is: ${ours}`;
}

function verbFor(word: string, isOfBackup: boolean): string | null {
  const missing = isOfBackup ? own(MISSING_VERBS, word) : undefined;
  if (missing !== undefined) return missing;
  const line = own(isOfBackup ? OTHER_VERBS : OTHER_COMMANDS, word);
  return line === undefined ? null : `here it is: ${line}`;
}

/** Not what every object has. */
function own<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}
