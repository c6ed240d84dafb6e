const PATH = String.raw`('[^']*'|[^\s;,)\`]+)`;
const WORD = String.raw`([^\s\`]+)`;

/** Commands that hints speak of, in quotes or without, and the calls that do the same. The first that fits counts. */
const COMMANDS: readonly (readonly [string, string])[] = [
  ["doctor --repair", "doctor({ repair: true })"],
  ["cleanup --keep-last 10 --keep-daily 14", "previewCleanup({ retention: { keepLast: 10, keepDaily: 14 } })"],
  [`cleanup --set-policy --quota ${WORD}`, "setPolicy({ quotaBytes })"],
  ["cleanup --clear-policy, then --set-policy", "setPolicy({ retention, quotaBytes })"],
  [`cleanup --only ${WORD}`, 'previewCleanup({ only: ["$1"] })'],
  ["cleanup --keep-last (\\d+)", "previewCleanup({ retention: { keepLast: $1 } })"],
  ["cleanup --plan", "previewCleanup()"],
  ["verify --all", "verifyAll()"],
  ["view --list", "listViews()"],
  ["workspaces", "listWorkspaces()"],
  [`init --engine ${WORD}`, 'openOrAdopt(path, { engineType: "$1" })'],
  [`engine set ${WORD}`, 'setEngine("$1")'],
  ["engine show", "detectEngine(path)"],
  [`relocate ${PATH} ${PATH}`, "relocate($1, $2)"],
  [`(?:init|save) ${PATH}`, "openOrAdopt($1)"],
  [`release ${PATH}`, "open($1)` and `release()"],
  [`-C ${PATH} restore latest`, 'open($1)` and `restore({ target: "latest" })'],
  [`-C ${PATH} (?:…|status)`, "open($1)"],
  ["run -- npm test", 'run(["npm", "test"])'],
  ["show POINT", "show(point)"],
  ["why PATH", "why(path)"],
  ["(save|history|status|doctor|seal|undo|fork|show|verify|release)", "$1()"],
  [`backup use -r ${WORD}`, "setBackupRepository({ repository })"],
  [`backup init -r ${PATH}`, "initRepository({ repository: $1, … })"],
  ["backup unlock --remove-all", "unlock({ all: true })"],
  ["backup repair snapshots", "repairSnapshots()"],
  [String.raw`backup repair (\w+)`, 'repair({ what: "$1" })'],
  ["backup key passwd", "changePassword()"],
  ["backup key list", "keys()"],
  ["backup key", "addKey()"],
  ["bundle inspect", "inspectBundle()"],
  ["bundle backup FILE", "backupContext(store, file)"],
  ["bundle import FILE PARENT", "importBundle(store, file, parent)"],
  ["bundle restore FILE", "restoreContext(store, file)"],
  ["context reindex", "reindexContext(store)"],
  ["context ls", "listContext(store)"],
  ["restore POINT --to DIR", "restore({ target, to })"],
  ["vm list", "listMachines(machines)"],
  ["vm restore", "restoreMachine(machines, name)"],
  [`vm save ${WORD}`, "saveMachine(machines, name)"],
  ["vm clone --from-dir", "cloneMachine(machines, name, { fromDirectory })"],
  ["import --from-dir", "importDirectory(from, folder)"],
  ["clone --from-dir", "importDirectory(from, folder, { isClone: true })"],
  ["context init --embedding none", 'initContext(folder, { embedding: "none" })'],
  [`context init ${PATH}`, "initContext($1)"],
  ["backup create", "createBackup()"],
  [`backup restore ${WORD} ${WORD} --to DIR`, 'restore("$1", folder, { paths: ["$2"] })'],
  [`backup show ([^\\s:\`]+):${WORD}`, 'show("$1", "$2")'],
  [`backup show ${WORD}`, 'show("$1")'],
  [String.raw`backup (\w+)`, "$1()"],
];

/** Options and words that hints speak of by themselves. */
const OPTIONS: readonly (readonly [string, string])[] = [
  ["and --set-policy: then", "and `setPolicy({ retention })`: then"],
  [`-C ${PATH} --control-dir ${PATH}`, "`open($1, { controlDirectory: $2 })`"],
  ["the next (?:cairn )?command (finishes|is)", "the next call $1"],
  ["; in a program, open that path", ""],
  [": sudo -u '#([^']+)'(?: cairn …)?", " (uid $1)"],
  ["`repair snapshots`", "`repairSnapshots()`"],
  ["name one with -r, or", "open one that is named, or"],
  ["--keep-last 10 --keep-daily 30", "`retention: { keepLast: 10, keepDaily: 30 }`"],
  ["--keep-last 1\\b", "`keepLast: 1`"],
  ["--host, --path and --tag", "`hosts`, `paths` and `tags`"],
  ["--add, --remove or --set; --set '' takes", "`add`, `remove` or `set`; an empty `set` takes"],
  ["--password-(?:file|command) [^,;]+(?:, --password-command COMMAND)?", "`password`"],
  ["--on-conflict overwrite", '`onConflict: "overwrite"`'],
  ["--vector-mode auto", '`vectorMode: "auto"`'],
  ["--embedding openai", '`embedding: "openai"`'],
  [String.raw`--model ([\w-]+)`, '`model: "$1"`'],
  [String.raw`--level (\d)`, "`level: $1`"],
  ["--overwrite", "`overwrite`"],
  ["--delete-points", "`deletePoints`"],
  ["--nic TAP", "`nics`"],
  ["--force\\b", "`force`"],
  ["--through-sqlite", "`throughSqlite`"],
  ["--keep-present", "`keepPresent`"],
  ["--with ([^=\\s]+)=(\\S+)", '`with: ["$1=$2"]`'],
  ["--control-dir", "`controlDirectory`"],
  ["--allow (\\w+)", '`allow: ["$1"]`'],
  ["`--no-save`", "`save: false`"],
  ["`--lock-timeout 1m`", "`lockTimeoutMs`"],
  ["--no-prove or --prove-from", "`prove: false` or `proveFrom`"],
  ["--no-prove", "`prove: false`"],
  ["--overwrite if-changed", '`overwrite: "if-changed"`'],
  ["writes them with --archive tar", '`read` gives them with `archive: "tar"`'],
  ["--exclude PATTERN", "`exclude`"],
  ["`?--(to|overwrite|exclude|receipt|name|save|plan)\\b`?", "`$1`"],
  ["--path-b64", "its bytes"],
];

const ROWS = [
  ...COMMANDS.map(
    ([command, call]) => [new RegExp(`\`?\\bcairn ${command}(?![\\w-])\`?`, "g"), `\`${call}\``] as const,
  ),
  ...OPTIONS.map(([words, option]) => [new RegExp(words, "g"), option] as const),
];

/** Puts a hint as a program can follow it. Hints are written once, for whoever types commands; this alone knows both. */
export function hintForPrograms(hint: string): string {
  let text = hint;
  for (const [found, call] of ROWS) text = text.replace(found, call);
  return text;
}
