/**
 * Who may import whom in src/, with the reason. The order is the reading order: lowest first.
 * `tools/check-architecture.ts` enforces it; docs/reading-the-source.md walks it.
 */

export interface Layer {
  /** A folder of src/, or a file directly in it. */
  readonly name: string;
  readonly may: readonly string[];
  readonly reason: string;
}

const ROOT_FILES = ["errors.ts", "ids.ts", "native.ts", "failpoint.ts", "pacer.ts", "append.ts", "web-assembly.ts"];
const BELOW_WORKSPACE = [
  ...ROOT_FILES,
  "threads",
  "contract",
  "formats",
  "fs",
  "output",
  "crypto",
  "repository",
  "archive",
  "clones",
  "capture",
];
const BELOW_VERBS = [...BELOW_WORKSPACE, "workspace", "backup", "bundle", "context"];
const BELOW_DAEMON = [...BELOW_VERBS, "look", "keep", "change", "verbs"];

export const LAYERS: readonly Layer[] = [
  { name: "errors.ts", may: [], reason: "every file may fail, so the error class can need nothing" },
  { name: "ids.ts", may: ["errors.ts"], reason: "an id is checked before it is used anywhere" },
  { name: "native.ts", may: ["errors.ts"], reason: "the one door to native code must be open to the lowest layers" },
  { name: "failpoint.ts", may: ["errors.ts"], reason: "a step at any depth may be made to fail" },
  { name: "pacer.ts", may: ["errors.ts"], reason: "long work at any depth lets its caller stop it" },
  { name: "append.ts", may: [], reason: "lists are long at any depth" },
  { name: "web-assembly.ts", may: [], reason: "a kernel may serve any layer and knows none" },
  { name: "node-version.ts", may: [], reason: "a Node that is too old must be able to read it" },
  { name: "load-script.ts", may: [], reason: "it loads everything else of the command, and is built apart from it" },
  {
    name: "contract",
    may: ["errors.ts", "ids.ts"],
    reason: "the words of every verb are said once, below all that carries it out",
  },
  {
    name: "threads",
    may: ["errors.ts", "thread-worker.ts"],
    reason: "a pool of threads knows no work: only the script that all of them begin with",
  },
  {
    name: "formats",
    may: ["errors.ts", "ids.ts"],
    reason: "byte layouts are pure functions: no disk, no keys, no clock",
  },
  { name: "fs", may: ROOT_FILES, reason: "files and folders know nothing of what is kept in them" },
  {
    name: "output",
    may: [...ROOT_FILES, "formats", "fs"],
    reason: "a tree becomes a folder or an archive in one way, whether it comes from a point, a snapshot or a bundle",
  },
  { name: "crypto", may: ["errors.ts", "native.ts"], reason: "sealing must be readable and testable without the rest" },
  {
    name: "repository",
    may: [...ROOT_FILES, "threads", "formats", "fs", "crypto"],
    reason: "a repository serves save points and backups alike, so it knows neither",
  },
  {
    name: "archive",
    may: [...ROOT_FILES, "threads", "contract", "formats", "fs", "crypto", "repository"],
    reason: "a folder becomes trees and trees become a folder; neither knows what a save point is",
  },
  {
    name: "clones",
    may: [...ROOT_FILES, "threads", "contract", "formats", "fs", "archive"],
    reason: "a clone driver holds a tree in the file system; it knows no repository and no workspace",
  },
  {
    name: "thread-main.ts",
    may: ["threads", "repository", "archive", "clones"],
    reason: "the one table of the kinds of work that threads do, each of which it loads when it is asked for",
  },
  {
    name: "thread-worker.ts",
    may: ["threads", "thread-main.ts"],
    reason: "a thread turns the compile cache on before it loads anything else",
  },
  {
    name: "capture",
    may: [...ROOT_FILES, "formats", "fs"],
    reason: "an image of something live is a file like any other to those above",
  },
  {
    name: "workspace",
    may: BELOW_WORKSPACE,
    reason: "save, restore and history are built from the parts below and from nothing above",
  },
  {
    name: "backup",
    may: [...BELOW_WORKSPACE, "workspace"],
    reason: "a backup is made of save points and repositories; which calls there are is said above it",
  },
  {
    name: "bundle",
    may: [...ROOT_FILES, "formats", "fs", "output"],
    reason: "a portable file must be readable without a store",
  },
  {
    name: "context",
    may: [...ROOT_FILES, "formats", "fs", "output", "bundle"],
    reason: "a context store is files and an index; save points and backups take it as any folder",
  },
  {
    name: "agents",
    may: ["errors.ts", "fs"],
    reason: "which folders an agent's hooks save, and what its tool records, is known without a workspace",
  },
  { name: "look", may: BELOW_VERBS, reason: "a state is read without being changed" },
  {
    name: "keep",
    may: [...BELOW_VERBS, "look"],
    reason: "what keeps a workspace in the long run names its points as a look does",
  },
  {
    name: "change",
    may: [...BELOW_VERBS, "look", "keep"],
    reason: "a change runs the workspace's hooks, and names what it did as a look does",
  },
  {
    name: "verbs",
    may: [...BELOW_VERBS, "look", "keep", "change", "agents"],
    reason: "one file per verb: the table of contents of the product, from which every surface is made",
  },
  {
    name: "compose.ts",
    may: BELOW_DAEMON,
    reason: "the only file that names concrete adapters, so all others can be given any",
  },
  {
    name: "index.ts",
    may: [...BELOW_DAEMON, "compose.ts", "node-version.ts"],
    reason: "the public library: what it exports is promised",
  },
  {
    name: "daemon",
    may: [...BELOW_DAEMON, "compose.ts", "agents"],
    reason: "the daemon drives the verbs that the command drives too",
  },
  {
    name: "api",
    may: [...BELOW_DAEMON, "daemon", "agents"],
    reason: "HTTP and MCP are two skins of the same verbs",
  },
  {
    name: "client.ts",
    may: [...BELOW_DAEMON, "node-version.ts", "daemon", "api"],
    reason: "the package's client: what it exports is promised",
  },
  {
    name: "client-browser.ts",
    may: ["errors.ts", "contract", "verbs"],
    reason: "a page downloads it: the wire's one word is a value, the verbs are types",
  },
  {
    name: "cli",
    may: [...BELOW_DAEMON, "compose.ts", "index.ts", "daemon", "api", "agents"],
    reason: "nothing may depend on how a terminal is spoken to",
  },
];

/** Who may import whom in web/src/. */
export const WEB_LAYERS: readonly Layer[] = [
  { name: "css.d.ts", may: [], reason: "it says that a style sheet is a module" },
  { name: "styles", may: [], reason: "colours and sizes know no component" },
  { name: "parts", may: ["styles"], reason: "components know no call and no view" },
  { name: "app", may: ["styles", "parts"], reason: "calls, routes and the frame know no view" },
  { name: "views", may: ["styles", "app", "parts"], reason: "a view is shown by the page and shows parts" },
  { name: "app.tsx", may: ["app", "parts", "views"], reason: "it names every view" },
  { name: "main.tsx", may: ["styles", "app.tsx"], reason: "it draws the page, and nothing else" },
];

/** A row of folders of a room, which do not know each other. */
export interface RoomLayer {
  /** Folders below the room; `.` for its own files. */
  readonly folders: readonly string[];
  readonly reason: string;
}

/**
 * Layers inside the rooms, the lowest first: a folder imports values only from its own files and from lower rows. `import type`
 * does not count. `tools/check-layers.ts` enforces it.
 */
export const ROOM_LAYERS: Readonly<Record<string, readonly RoomLayer[]>> = {
  formats: [
    { folders: ["."], reason: "bytes, fields and digests serve every format" },
    { folders: ["envelope", "machine", "msgvault", "ovpack", "records"], reason: "each kind of file is read alone" },
    { folders: ["restic"], reason: "restic's files carry some of Cairn's records" },
    { folders: ["payloads"], reason: "content of snapshots is described by restic's nodes" },
  ],
  fs: [
    { folders: ["paths"], reason: "a path is a value before any file is opened" },
    { folders: ["linux"], reason: "system calls know no rule of ours" },
    { folders: ["."], reason: "files and folders are made of paths and calls" },
  ],
  archive: [
    { folders: ["cache", "write"], reason: "a folder is written without being scanned" },
    {
      folders: ["databases", "scan"],
      reason:
        "a scan asks the cache of what was written or scanned before; pages of a database are found by its nodes alone",
    },
    { folders: ["pages"], reason: "a scan does not know how its databases are stored" },
  ],
  capture: [{ folders: ["sqlite", "vm"], reason: "a database and a machine have nothing in common" }],
  repository: [
    { folders: ["index", "storage"], reason: "the table of blobs and the bytes of files know nothing of each other" },
    {
      folders: ["packs", "trees", "storage/rest", "storage/s3", "storage/sftp"],
      reason: "packs and trees are found by the index; a storage is one of its kind",
    },
    { folders: [".", "read"], reason: "an open repository, and a blob from wherever it is sound" },
    { folders: ["transfer", "verify"], reason: "copies and proofs read what is there" },
    { folders: ["care"], reason: "a removal or repair follows from what was proved" },
  ],
  bundle: [
    { folders: ["."], reason: "one file is read without a folder" },
    { folders: ["export-directory", "msgvault"], reason: "a folder of files is checked as a bundle is" },
  ],
  workspace: [
    { folders: ["store"], reason: "the embedded store knows no folder that is kept" },
    { folders: ["place"], reason: "a control directory is found before its points" },
    { folders: ["points"], reason: "a point is read without its workspace being at work" },
    { folders: ["open"], reason: "recovery runs before every change, whichever it is" },
    { folders: ["keep"], reason: "a save may have to make room first" },
    { folders: ["save"], reason: "a restore saves the present first" },
    { folders: ["rules"], reason: "a restore carries out what a rule has planned" },
    { folders: ["restore"], reason: "a new folder asks a restore for its plan and its checks" },
    { folders: ["new-folder"], reason: "a fork is a folder with a first point" },
    { folders: ["care"], reason: "proofs, repairs and ends know all that can be under way" },
  ],
  backup: [
    { folders: ["databases"], reason: "a database is written or read whole without a snapshot" },
    { folders: ["open"], reason: "a repository is opened and its snapshots are chosen before anything else" },
    { folders: [".", "create", "restore"], reason: "making, looking and restoring do not need each other" },
    { folders: ["care"], reason: "a check restores, a repair looks" },
  ],
  look: [
    { folders: ["inspect"], reason: "a file of any kind is recognised without a workspace" },
    { folders: ["sources"], reason: "a state is opened before it is asked" },
    { folders: ["."], reason: "a workspace's states are looked at" },
  ],
  keep: [
    { folders: ["context"], reason: "a context store has no schedule of its own" },
    { folders: ["."], reason: "schedule, alarms and hooks serve all that runs" },
    { folders: ["machines"], reason: "the states of a machine are points of a workspace" },
  ],
  verbs: [
    { folders: ["kinds"], reason: "a kind of verb says what a verb's file has in it" },
    {
      folders: [
        "backups",
        "bundles",
        "care",
        "context",
        "daemon",
        "databases",
        "folders",
        "looking",
        "machines",
        "points",
        "repository-care",
        "snapshots",
      ],
      reason: "a verb is read alone",
    },
    { folders: ["."], reason: "the tables name every verb" },
  ],
  daemon: [
    { folders: ["state"], reason: "what is durable, and who may change it, is known to all" },
    { folders: ["records", "schedules", "watch", "ws-ckpt"], reason: "each does one thing by the state" },
    { folders: ["."], reason: "the daemon drives them" },
    { folders: ["log"], reason: "a log line says what the daemon did" },
  ],
  api: [
    { folders: ["."], reason: "listening is the same for every protocol" },
    { folders: ["rights"], reason: "who may make which call is one table" },
    { folders: ["client", "context-server", "repository-server"], reason: "no protocol knows another" },
    { folders: ["mcp"], reason: "a tool may be done by a daemon" },
    { folders: ["socket"], reason: "a call of the daemon may be a tool, which calls it back" },
    { folders: ["page"], reason: "the page's calls are answered by the socket's handler" },
  ],
  cli: [
    { folders: ["render"], reason: "words and tables know no command" },
    { folders: ["."], reason: "options and input are the same for every command" },
    {
      folders: [
        "commands/agent",
        "commands/backup",
        "commands/bundle",
        "commands/cleanup",
        "commands/context",
        "commands/database",
        "commands/receipt",
        "commands/service",
        "completion",
      ],
      reason: "a group of commands is read alone",
    },
    {
      folders: ["commands/going-back", "commands/looking"],
      reason:
        "a restore names the agents whose hooks it removed, status the saves that hooks left to a background process",
    },
    { folders: ["commands"], reason: "single commands may show what a group shows" },
    { folders: ["commands/vm"], reason: "a state of a machine is an export directory" },
    { folders: ["program"], reason: "the program names every command" },
  ],
  // A room of web/src/.
  views: [
    { folders: ["files", "overview", "point"], reason: "a view of several files is read alone" },
    { folders: ["."], reason: "the history of a file shows its changes as a point does" },
    { folders: ["activity", "timeline"], reason: "undo and redo in a list are those of the view of a restore" },
  ],
};

/** Packages, the one place that may import each of them, and the reason. */
export const PACKAGE_HOMES: readonly { name: string; home: RegExp; reason: string }[] = [
  { name: "koffi", home: /^native\.ts$/, reason: "one file loads native code and says so where it cannot" },
  { name: "age-encryption", home: /^crypto\/age\.ts$/, reason: "only whoever reads or writes such a file loads it" },
  {
    name: "bcryptjs",
    home: /^api\/repository-server\/bcrypt-worker\.ts$/,
    reason: "a guess costs tens of milliseconds, which a thread of its own takes",
  },
  {
    name: "@fastify/busboy",
    home: /^api\/context-server\/uploads\.ts$/,
    reason: "one place takes files out of forms",
  },
  { name: "sqlite-vec", home: /^context\//, reason: "only an index has vectors" },
  { name: "valibot", home: /^contract\//, reason: "schemas are written in the words of one file" },
  {
    name: "@modelcontextprotocol/sdk",
    home: /^api\/mcp\/(?:server|http)\.ts$/,
    reason: "two files speak the protocol, one of them over HTTP; the tools are verbs",
  },
  {
    name: "jsonc-parser",
    home: /^agents\/json\.ts$|^cli\/commands\/agent\/edit\.ts$/,
    reason: "only other tools' files have comments in JSON",
  },
  { name: "@valibot/to-json-schema", home: /^contract\//, reason: "schemas are known in one folder" },
  { name: "commander", home: /^cli\//, reason: "the library must not load a command line parser" },
  { name: "@clack/prompts", home: /^cli\/choose-restore\.ts$/, reason: "only a restore asks questions with a list" },
  { name: "string-width", home: /^cli\//, reason: "only the terminal has columns" },
  {
    name: "aws4fetch",
    home: /^repository\/storage\/s3\/requests\.ts$/,
    reason: "credentials meet requests in one file",
  },
  { name: "node-diff3", home: /^workspace\/rules\/merge-text\.ts$/, reason: "only adopt --merge merges texts" },
  { name: "esbuild", home: /^$/, reason: "a build tool is not there at run time" },
  { name: "fast-check", home: /^$/, reason: "a test tool is not there at run time" },
];

/** Concrete adapters and the only places outside their folder that may name them. */
export const ADAPTERS: readonly { files: RegExp; home: RegExp; users: RegExp; reason: string }[] = [
  {
    files: /^repository\/storage\/(?:local|memory|(?:sftp\/)?sftp|(?:s3\/)?s3|(?:rest\/)?rest|faulty|counting)\.ts$/,
    home: /^repository\/storage\//,
    // The embedded store is a folder of local files by its definition.
    users: /^compose\.ts$|^workspace\/store\/embedded-store\.ts$/,
    reason: "code that takes a Storage works with every storage",
  },
  {
    files: /^clones\/(?:btrfs|juicefs|reflink)-holder\.ts$/,
    home: /^clones\//,
    users: /^compose\.ts$/,
    reason: "code that takes a holder of trees works with every holder",
  },
];

/** Words that some files may not have. A file of `formats` must give the same answer for the same bytes at any time. */
export const FORBIDDEN_WORDS: readonly { files: RegExp; forbidden: RegExp; reason: string }[] = [
  {
    files: /^formats\//,
    forbidden:
      /\bfrom "node:(?:fs|os|crypto|child_process|worker_threads|net|http)[/"]|\bDate\.now\(\)|\bnew Date\(\)|\bMath\.random\(\)/,
    reason: "a byte layout depends on its input alone: no disk, no clock, no chance",
  },
  {
    files: /./,
    forbidden: /\.(?:push|unshift)\(\s*\.\.\./,
    reason: "each of a list is an argument on the stack then, which ends at some 120 000: append.ts",
  },
  {
    files: /^(?!fs\/(?:linux\/|(?:regular-file|lock-owner|users)\.ts)|(?:load-script|failpoint)\.ts)/,
    forbidden: /\breadFileSync\((?!fd\b|"\/|`\/)[^\n]*|\bopenSync\([^\n]*(?:"r\+?"\)|O_RDONLY\)|O_RDWR\))/,
    reason: "a pipe in a file's place would be waited for: openRegular() and readRegular() in fs/regular-file.ts",
  },
  {
    files: /./,
    forbidden: /\brm(?:dir)?(?:Sync)?\([^;]*?\brecursive\b/,
    reason: "it empties what is mounted inside: removeAll() and its like in fs/remove-all.ts",
  },
];

export const FORBIDDEN_FOLDERS: readonly string[] = ["utils", "util", "common", "helpers", "shared", "misc", "lib"];

/** The most lines of a file. */
export const FILE_LINES = 800;

/** Limits that keep the source small enough for one reader. oxlint limits functions to 80 lines. */
export const LIMITS = {
  "files in a folder": 25,
  "files in the longest chain of value imports": 15,
  "files that one file imports": 20,
  "doc comments that do not stand alone": 0,
  'comments with "what" as a noun': 0,
  'comments with "where" for "if"': 0,
  "comments with a pronoun as subject": 0,
} as const;

/**
 * The most lines of a folder's README.md, which says what the folder owns, its doors, and what it never does. The table of
 * decisions at its end is not counted: its rows are looked up and not read.
 */
export const README_LINES = 15;

/** Beginnings of doc comments that cannot be read alone. */
export const LEANING_COMMENT = /^(?:The same|Likewise|What|Whether|Where|Of|Who|Whose|Which|How|Why|That)\b/;

/** Words that do not name the thing that is meant, each with the limit on comments that have such words. */
export const RIDDLES: readonly { limit: keyof typeof LIMITS; words: RegExp }[] = [
  {
    limit: 'comments with "what" as a noun',
    words: /(?<!\b(?:ask|decide|know|learn|name|said|say|see|show|tell|told)s? )\bwhat\b/i,
  },
  {
    limit: 'comments with "where" for "if"',
    words:
      /\b(?:null|true|false|undefined|empty|absent|only|but|except|even|also|throws[^.;]*|not) where\b|\bwhere (?:all|both|it|neither|nobody|none|no|nothing|one|somebody|that|there|they|this|those) /i,
  },
  {
    limit: "comments with a pronoun as subject",
    words:
      /(?:^|[.:] )(?:It|They|This|That|These|Those) (?:[a-z]+s|are|can|did|do|had|have|may|must|were|will|would)\b/,
  },
];

/** The most lines of a doc comment. */
export const COMMENT_LINES = 3;
