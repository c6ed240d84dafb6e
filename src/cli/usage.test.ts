import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { CairnError } from "../errors.ts";
import type { CommandDefinition } from "./command.ts";
import { REPOSITORY_OPTIONS } from "./commands/backup/repository.ts";
import { ALL_TABLES } from "../verbs/index.ts";
import { WITHOUT_VERB } from "./program/command-data.ts";
import { GLOBAL_OPTIONS } from "./definitions.ts";
import { COMMANDS } from "./program/commands.ts";
import { FORMER, formerOption } from "./program/other-words.ts";
import { asksForJson, commandNameOf, parse } from "./program/program.ts";
import { argsOf, CLEANUP, fakeLibrary, POINT, ROOT, SHOWN_FILE } from "./testing-fake-library.ts";
import { WRONG_BACKUPS } from "./testing-backup-lines.ts";
import { runFake, runJson } from "./testing-run.ts";
import { VERSION } from "../formats/program.ts";

async function withVerbs(name: string, command: CommandDefinition): Promise<[string, CommandDefinition][]> {
  const verbs = Object.entries(command.verbs ?? {}).map(async ([verb, { load }]) =>
    withVerbs(`${name} ${verb}`, (await load()).command),
  );
  return [[name, command], ...(await Promise.all(verbs)).flat()];
}

test("every command has its name and examples", async () => {
  const check = ({ name, examples }: CommandDefinition, called: string): void => {
    assert.equal(name, called);
    assert.ok(examples.length > 0, `${called} has no example`);
  };
  for (const [name, { load }] of Object.entries(COMMANDS)) {
    for (const [line, command] of await withVerbs(name, (await load()).command)) check(command, line);
  }
});

test("all verbs of backup for one of Cairn's repositories take the options of a repository", async () => {
  const { command } = await COMMANDS["backup"]!.load();
  for (const [verb, { load }] of Object.entries(command.verbs!)) {
    // Each folder that the first backs up has a repository of its own; the second reads another program's.
    if (["import-msgvault"].includes(verb)) continue;
    const { options } = (await load()).command;
    assert.ok(
      REPOSITORY_OPTIONS.every((option) => options?.includes(option)),
      verb,
    );
  }
});

test("a verb is recognised after its group's options", async () => {
  const { envelope } = await runJson(["backup", "-r", "create", "list", "--latest", "1"]);
  assert.deepEqual([envelope.command, envelope.error], ["backup list", null]);
  for (const line of ["backup create --help", "help backup create", "backup --help"]) {
    const help = await runFake(line.split(" "));
    assert.match(help.stdout, line === "backup --help" ? /init +create an empty/ : /Usage: cairn backup create/, line);
    assert.equal(help.status, 0);
  }
  assert.equal((await runJson(["receipt", "verify", "z"])).envelope.command, "receipt verify");
  assert.match((await runFake(["backup"])).stdout, /Usage: cairn backup/);
});

test("an option that is the default is explained as such", async () => {
  for (const [line, hint] of [
    ["backup create --save -r x", /--save is the default unless --no-save is given: leave it out/],
    ["backup list --no-host -r x", /--no-host is the default unless --host is given/],
  ] as const)
    assert.match((await runJson(line.split(" "))).envelope.error!.hint!, hint);
});

test("every command prints the answer of a verb, or is in the list of commands without one", async () => {
  const ofVerbs = ALL_TABLES.flatMap((table) => Object.values(table)).flatMap(({ command }) =>
    typeof command === "string" ? [command] : Object.keys(command ?? {}),
  );
  const commands = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, { load }]) => {
      const verbs = Object.keys((await load()).command.verbs ?? {});
      return verbs.length === 0 ? [name] : verbs.map((verb) => `${name} ${verb}`);
    }),
  );
  const without = commands
    .flat()
    .filter((line) => !ofVerbs.some((each) => each === line || each.startsWith(`${line} `)));
  const listed = Object.keys(WITHOUT_VERB).filter((line) => !line.includes("--"));
  assert.deepEqual(without.toSorted(), listed.toSorted());
});

test("--help lists about twenty commands and names `help --all`, which lists every command", async () => {
  const named = async (...words: string[]): Promise<string[]> => {
    const { stdout } = await runFake(words);
    const printed = stdout.replaceAll(/\n {4,}/g, " ");
    return Object.entries(COMMANDS).flatMap(([name, { summary }]) =>
      printed.includes(`\n  ${name} `) && printed.includes(summary) ? [name] : [],
    );
  };
  const visible = Object.keys(COMMANDS).filter((name) => COMMANDS[name]!.hidden !== true);
  for (const words of [
    ["help", "--all"],
    ["help", "--all", "-q"],
    ["-q", "help", "--all"],
  ])
    assert.deepEqual(await named(...words), visible);
  for (const words of [["--help"], ["help"], []]) {
    const some = await named(...words);
    assert.ok(some.length >= 18 && some.length <= 22, some.join(" "));
    assert.match((await runFake(words)).stdout, /`cairn help --all`/);
  }
});

test("a command's help has examples", async () => {
  for (const line of [
    ["save", "--help"],
    ["help", "save"],
  ]) {
    const help = await runFake(line);
    assert.match(help.stdout, /Usage: cairn save \[options\] \[dir\]/);
    assert.match(help.stdout, /Examples:\n {2}\$ cairn save\n/);
  }
});

test("--help with --json prints an envelope", async () => {
  const { envelope, status } = await runJson(["--help"]);
  assert.equal(status, 0);
  assert.match((envelope.data as { text: string }).text, /Usage: cairn/);
});

test("--version prints the package's version", async () => {
  const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  assert.equal(VERSION, manifest.version);
  assert.equal((await runFake(["--version"])).stdout, `${VERSION}\n`);
});

const WRONG: [string, RegExp][] = [
  ["sav", /unknown command 'sav'/],
  ["save --nope", /unknown option '--nope'/],
  ["restore head -f", /unknown option '-f'/],
  ["save a b", /too many arguments/],
  ["restore", /missing required argument 'target'/],
  ["save -m", /argument missing/],
  ["save --cause nonsense", /--cause is not JSON/],
  ["save --cause {}", /--cause must be an object/],
  ["save --allow everything", /--allow must be one of home/],
  ["save --progress loud", /--progress/],
  ["save a -C b", /given twice/],
  ["save --lock-timeout soon", /--lock-timeout must be a time/],
  ["backup list -r x --limit-download 0", /--limit-download must be at least 1/],
  ["history -n many", /must be a whole number/],
  ["restore head --path-b64 ???", /not base64/],
  ["restore head ../../outside", /outside the workspace/],
  ["show head:/etc/passwd", /without a leading slash/],
  ["view head --close x", /--close and TARGET exclude each other/],
  ["verify head --all", /--all and POINT exclude each other/],
  ["tag head", /needs a tag/],
  ["run", /missing required argument/],
  ["cleanup drop", /missing required argument/],
  ["cleanup abc", /too many arguments/],
  ["cleanup purge", /needs --path PATTERN or --text TEXT/],
  ["cleanup policy --none --keep-last 1", /--keep-last and --none exclude each other/],
  ["cleanup --apply x --plan", /--plan and --apply exclude each other/],
  ["cleanup --keep-within soon", /must be a span/],
  ["cleanup --max-size big", /must be a size/],
  ["cleanup --keep-last -1", /negative|argument missing/],
  ["init --engine zfs", /must be one of btrfs-snapshot/],
  ["completion tcsh", /the shell must be one of/],
  ["engine a b", /too many arguments/],
  ["vm create m --kernel a --kernel b", /--kernel was given twice: as a and as b/],
  ["save -m one -m two", /--message was given twice/],
  ["engine show --allow holders", /unknown option '--allow'/],
  ["engine --plain", /unknown option '--plain'/],
  ["fork head x --plan", /--plan works with --remove only/],
  ["release . --apply x", /--apply works with --delete-points only/],
  ["diff --limit 3", /--limit works with --sql only/],
  ["hooks --none --set time-limit=3", /exclude each other/],
  ["save --from-msgvault x --exclude y", /exclude each other/],
  ["service token list --name x", /unknown option '--name'/],
  ["serve-repository --path /tmp --tls y --tls z --tls u", /--tls takes one file, or the certificate and then its key/],
  ["serve-repository --path x --no-auth --private-repositories", /exclude each other/],
  ["show -R head --sort size", /--recursive and --sort exclude each other/],
  ...WRONG_BACKUPS,
];

for (const [line, message] of WRONG) {
  test(`cairn ${line} is a usage error`, async () => {
    const { envelope, status, fake } = await runJson(line.split(" "));
    assert.deepEqual([status, envelope.ok, envelope.error?.code], [2, false, "usage"]);
    assert.match(envelope.error?.message ?? "", message);
    const changing = ["save", "restore", "run", "runCleanup", "tag", "init", "adopt"];
    assert.deepEqual(
      fake.asked.filter((asked) => changing.includes(asked.method)),
      [],
    );
    const told = await runFake(line.split(" "));
    assert.deepEqual([told.status, told.stdout], [2, ""]);
    assert.match(told.stderr, message);
  });
}

test("help of an unknown command is a usage error", async () => {
  assert.equal((await runFake(["help", "sav"])).status, 2);
  assert.equal((await runFake(["help"])).status, 0);
  for (const [line, message] of [
    ["restore head -f", /an argument that begins with "-", put it after "--"/],
    ["help save foo", /there is no command "save foo"/],
    ["help backup lis", /there is no command "backup lis"\n.*did you mean `cairn backup list`/],
  ] as const) {
    const { status, stderr } = await runFake(line.split(" "));
    assert.equal(status, 2, line);
    assert.match(stderr, message);
  }
});

test("an unknown word gets a proposal: a command that begins with it, an equivalent or a similar one", async () => {
  for (const [line, answer] of [
    ["sta", "did you mean `cairn status`?"],
    ["restor", "did you mean `cairn restore`?"],
    ["snap", "use `cairn save` instead"],
    ["stash", "use `cairn save` instead"],
    ["reflog", "use `cairn history --all` instead"],
    ["mv", "use `cairn relocate` instead"],
    ["unlock", "for a repository use `cairn backup unlock`"],
    ["stauts", "did you mean `cairn status`?"],
    ["backup lst", "did you mean `cairn backup list`?"],
    ["backup dump", "use `cairn backup show SNAPSHOT:PATH` instead"],
    ["backup check", "use `cairn backup verify` instead"],
    ...["check", "fsck", "chec"].map((word) => [word, "use `cairn verify` instead"] as const),
    ["gc", "use `cairn cleanup` instead"],
    ["mount", "use `cairn view POINT` instead"],
    ["dump", "use `cairn show POINT:PATH` instead"],
    ["cat", "use `cairn show POINT:PATH` instead"],
    ["snapshots", "use `cairn history` instead"],
    ["log", "use `cairn history` instead"],
    ["rollback", "use `cairn restore POINT` instead"],
    ["revert", "use `cairn restore POINT` instead"],
    [
      "merge",
      "`cairn adopt FORK --merge` merges a fork into its original; points cannot be merged: `cairn diff A B` comp",
    ],
    ["conf", "settings are options of commands: `cairn cleanup --help`"],
    ["info", "use `cairn status` instead"],
    ["undelete", "use `cairn restore head PATH` instead"],
    ...["delete", "remove", "rm"].map((word) => [word, "`cairn cleanup drop POINT` removes a save point"] as const),
    ["forget", "`cairn release DIR` ends the care for a folder, also if its points are lost"],
    ["cleanup abc", "to remove named points: `cairn cleanup drop POINT`"],
    ["cleanup --only abc", "use `cairn cleanup drop POINT` instead"],
    ["cleanup --path .env", "use `cairn cleanup purge --path PATTERN` instead"],
    ["cleanup --keep-last 3 --set-policy", "use `cairn cleanup policy` with the same rules instead"],
    ["cleanup --clear-policy", "use `cairn cleanup policy --none` instead"],
    ["cleanup --keep-within-daily 1y", "use --keep-within daily:SPAN instead"],
    ["backup forget --keep-within-daily 1y", "use --keep-within daily:SPAN instead"],
    ["cleanup policy --keep-undo-within 1y", "use --keep-undo SPAN instead"],
    ["backup verify --connections 3", "use --jobs COUNT"],
    ["export head --to-tar a.tar", "use --to FILE.tar instead"],
    ["import --from-dir a b", "use --from DIR instead"],
    ["backup create --dry-run", "use --plan instead"],
    ["backup create --skip-if-unchanged", "use --skip-unchanged instead"],
    ["backup find --blob 1a2b", "use --object blob instead"],
    ["bundle import x y --force", "use --on-conflict overwrite instead"],
    ["bundle import x y -n", "use --plan instead"],
    ["vm list --machines x", "use the variable CAIRN_MACHINES instead"],
    ["view --list", "use `cairn view` without a point instead"],
    ["backup create --pack-size 64", "use the variable CAIRN_PACK_SIZE instead"],
    ["serve-repository --max-connections 9", "use the fixed limit of 200 connections instead"],
    ["cleanup policy --keep-undo 50 --keep-undo 5", "--keep-undo was given twice: 50 and 5"],
    ["cleanup policy --keep-undo 30d --keep-undo 12h", "--keep-undo was given twice: 30d and 12h"],
    ["export head", "--to PLACE is needed: an export directory, or a file whose name ends in .tar"],
    ["save --no-color", "use the variable NO_COLOR=1 instead"],
    ["diff a b c", "for one file: `cairn diff head~1 head --path FILE`"],
    ["search", "use `cairn find NAME` instead"],
    ["grep", "open a point as a folder: `cairn view POINT`"],
    ...["open", "gui"].map((word) => [word, "use `cairn ui` instead"] as const),
    ["uninstall", "`cairn agent remove TOOL` and `cairn service uninstall`"],
    ["upgrade", "points and settings stay"],
    ["ignore", "write patterns into the file `.cairnignore`"],
    ...["timer"].map((word) => [word, "`cairn service install --timer` saves"] as const),
    ["backup mount", "`cairn backup restore SNAPSHOT --to DIR` writes them"],
    ["agent install claude", "did you mean claude-code?"],
    ["backup info", "use `cairn backup stats` instead"],
    ["backup extract", "use `cairn backup restore SNAPSHOT --to DIR` instead"],
    ["backup delete", "use `cairn backup forget SNAPSHOT` instead"],
    ["backup compact", "use `cairn backup prune` instead"],
    ["backup restore latest --target x", "use --to DIR instead"],
    ["backup create --force", "use --reread instead"],
    ["backup copy --from-repo=x", "use --to REPOSITORY beside -r instead"],
  ] as const) {
    const { stderr, status } = await runFake(line.split(" "));
    assert.equal(status, 2);
    assert.ok(stderr.includes(answer), stderr);
  }
});

test("each option of an earlier version is answered with its replacement, and no command has it any more", async () => {
  const commands = new Map<string, string[]>();
  for (const [name, { load }] of Object.entries(COMMANDS)) {
    for (const [line, { options = [] }] of await withVerbs(name, (await load()).command))
      commands.set(
        line,
        [...options, ...GLOBAL_OPTIONS].flatMap(({ flags }) => flags.split(/[ ,]+/)),
      );
  }
  for (const key of Object.keys(FORMER)) {
    const [, begin, option] = /^(.*?) ?(-\S+)$/.exec(key) as unknown as [string, string, string];
    const answering = [...commands].filter(
      ([line, own]) => line.startsWith(begin) && formerOption(option, line, own) !== null,
    );
    assert.notEqual(answering.length, 0, `${key}`);
    const [line] = answering.find(([, own]) => !own.includes(option)) ?? [];
    assert.ok(line !== undefined, `${key} is an option still`);
    const { envelope, status } = await runJson([...line.split(" "), option]);
    assert.equal(status, 2, `${line} ${option}`);
    assert.match(envelope.error?.hint ?? "", /^use .* instead;/, `${line} ${option}`);
  }
});

test("a verb that changes something is not proposed for a word that is only similar", async () => {
  for (const line of [
    "undp",
    "releese",
    "uncle",
    "reve",
    "roll",
    "backup forgte",
    "backup extr",
    "backup prone",
    "vm ls",
    "vm check",
  ]) {
    const { stderr } = await runFake(line.split(" "));
    assert.doesNotMatch(stderr, /did you mean|instead|for a repository use/, line);
  }
  // The start of a word that looks is no start of a word that changes something.
  for (const line of ["che", "chec", "check", "checks"])
    assert.doesNotMatch((await runFake([line])).stderr, /restore|cleanup|undo/, line);
});

test("`backup DIR` means `backup create DIR`", async () => {
  const asked = async (line: string): Promise<unknown[]> => {
    const { fake, envelope } = await runJson(line.split(" "));
    return [envelope.command, fake.asked.map(({ method }) => method).filter((each) => /^create/i.test(each))];
  };
  for (const folder of [ROOT, ".", "./sub", "../.."]) {
    const created = await asked(`backup create ${folder} -r x`);
    assert.deepEqual(await asked(`backup ${folder} -r x`), created, folder);
    assert.equal(created[0], "backup create");
  }
  assert.deepEqual((await asked("backup -r /srv/x list"))[1], []);
});

test("all words after the first of `run` belong to the command that it runs", async () => {
  for (const [line, command] of [
    ["run git commit -m message", ["git", "commit", "-m", "message"]],
    ["run -m mine make -C ../other -q", ["make", "-C", "../other", "-q"]],
    ["run npm --version", ["npm", "--version"]],
    ["run ls --json --help", ["ls", "--json", "--help"]],
    ["run -q -- echo -- -x", ["echo", "--", "-x"]],
  ] as const) {
    const parsed = await parse(line.split(" "));
    assert.ok(parsed.kind === "call");
    assert.deepEqual(parsed.input.rest(0), command);
    assert.deepEqual([parsed.globals.json, parsed.globals.directory], [false, undefined]);
  }
});

test("--json without a command is a usage error, and a call without arguments prints the help", async () => {
  assert.equal((await runJson([])).status, 2);
  const { stdout, status } = await runFake([]);
  assert.equal(status, 0);
  assert.match(stdout, /Examples:/);
});

test("a usage error names the command if the line has a known one", async () => {
  const told = async (line: string): Promise<unknown> => (await runJson(line.split(" "))).envelope.command;
  assert.deepEqual(
    [await told("sav"), await told("--nope"), await told("help nope"), await told("save --nope")],
    [null, null, null, "save"],
  );
  assert.deepEqual(
    [await told("backup nope"), await told("backup restore"), await told("backup -r x find"), await told("backup")],
    ["backup", "backup restore", "backup find", "backup"],
  );
});

for (const line of [
  "engine set ext4",
  "restore head --method swap",
  "restore head --allow home",
  "undo --method swap",
  "fork head x --allow all",
  "history -n few",
])
  test(`no folder becomes a workspace if ${line} is invalid`, async () => {
    const nowhere = { find: () => null, open: () => Promise.reject(new CairnError("not_a_workspace", "no")) };
    const { envelope, fake } = await runJson(line.split(" "), { fake: fakeLibrary(nowhere, true) });
    assert.equal(envelope.error?.code, "usage");
    assert.deepEqual([fake.asked, envelope.warnings], [[], []]);
  });

test("global options are accepted before and after the command", async () => {
  for (const line of ["-C /a/b status", "status -C /a/b", "--quiet status --directory=/a/b", "status -q -C/a/b"]) {
    const { fake } = await runFake(line.split(" "));
    assert.equal(fake.asked[0]?.method, "open", line);
    assert.equal(fake.asked[0]?.args[0], "/a/b", line);
  }
});

test("--lock-timeout and --control-dir are passed to the library", async () => {
  const { fake } = await runFake("save d --lock-timeout 1.5s --control-dir c".split(" "));
  const options = fake.asked[0]?.args[1] as { lockTimeoutMs: number; controlDirectory: string };
  assert.deepEqual([fake.asked[0]?.method, fake.asked[0]?.args[0]], ["openOrInit", `${ROOT}/d`]);
  assert.deepEqual([options.lockTimeoutMs, options.controlDirectory], [1500, `${ROOT}/c`]);
});

test("save passes every option to the library", async () => {
  const line = [
    "save",
    "-m",
    "a b",
    "-t",
    "x",
    "--tag",
    "y",
    "--cause",
    '{"kind":"tool_call","tool":"sh"}',
    "--exclude",
    "*.o",
    "--reread",
    "--skip-unchanged",
    "--refuse-detached",
    "--cross-mounts",
    "--allow",
    "space",
  ];
  const { fake } = await runFake(line);
  const {
    signal: _signal,
    onProgress: _progress,
    onWarning: _warning,
    ...options
  } = argsOf(fake, "save")[0] as Record<string, unknown>;
  assert.deepEqual(options, {
    message: "a b",
    tags: ["x", "y"],
    cause: { kind: "tool_call", tool: "sh" },
    exclude: ["*.o"],
    allow: ["space"],
    reread: true,
    skipUnchanged: true,
    crossMounts: true,
    onDetached: "refuse",
  });
});

test("restore resolves paths from the current folder, and --path-b64 from the root", async () => {
  const { fake } = await runFake(["restore", "head~2", "a.txt", "../c", "--path-b64", "/w==", "--keep-present"], {
    cwd: `${ROOT}/sub`,
  });
  const options = argsOf(fake, "restore")[0] as { target: string; paths: unknown[]; keepPresent: boolean };
  assert.deepEqual([options.target, options.keepPresent], ["head~2", true]);
  assert.deepEqual(options.paths, ["sub/a.txt", "c", Buffer.from([0xff])]);
});

test("the argument of history is a path in the workspace, or the folder of another workspace", async () => {
  const inner = `${ROOT}/inner`;
  mkdirSync(inner, { recursive: true });
  const find = (path: string): string | null =>
    path.startsWith(inner) ? inner : path.startsWith(ROOT) ? ROOT : path === "/tmp" ? null : path;
  const asked = async (line: string, cwd = `${ROOT}/sub`): Promise<unknown[]> => {
    const { fake, status } = await runFake(line.split(" "), { fake: fakeLibrary({ find }, true), cwd });
    assert.equal(status, 0, line);
    return [argsOf(fake, "open")[0], (argsOf(fake, "history")[2] as { path?: unknown }).path];
  };
  assert.deepEqual(await asked("history a.txt"), [ROOT, "sub/a.txt"]);
  assert.deepEqual(await asked("history ../gone/too"), [ROOT, "gone/too"]);
  assert.deepEqual(await asked("history .."), [ROOT, undefined]);
  assert.deepEqual(await asked("history ../inner"), [inner, undefined]);
  assert.deepEqual(await asked("history /other"), ["/other", undefined]);
  assert.deepEqual(await asked(`history ${ROOT}`, "/tmp"), [ROOT, undefined]);
  assert.deepEqual(await asked(`history -C ${ROOT} src`, "/tmp"), [ROOT, "src"]);
  assert.deepEqual(await asked("history --path-b64 /w=="), [ROOT, Buffer.from([0xff])]);
  assert.equal((await runFake(["history", "a", "--path-b64", "/w=="], { cwd: ROOT })).status, 2);
});

test("history with a limit counts folded saves as one line", async () => {
  const points = Array.from({ length: 40 }, (_, at) => ({
    ...POINT,
    save_point_id: at.toString(16).padStart(8, "0").padEnd(32, "0") as (typeof POINT)["save_point_id"],
    ...(at > 0 && at < 30 ? { unchanged: true, message: "", tags: [] } : {}),
  }));
  const history = (_name: unknown, limit: number): object => ({
    save_points: points.slice(0, limit),
    undo: null,
    head: points[0]!.save_point_id,
    latest: points[0]!.save_point_id,
    damaged: [],
    truncated: limit < points.length,
  });
  const { stdout } = await runFake(["history", "-n", "3"], { fake: fakeLibrary({ history }) });
  assert.match(
    stdout,
    /^[^\n]*\n\* {2}00000000 [^\n]*\n +\(29 saves without a change\)\n {3}0000001e [^\n]*\n… there are more/,
  );
  const { envelope } = await runJson(["history", "-n", "3"], { fake: fakeLibrary({ history }) });
  assert.equal((envelope.data as { save_points: unknown[] }).save_points.length, 3);
});

test("show resolves a path from the root, or after ./ from the current folder, and proposes an existing one", async () => {
  const there = new Set(["sub/main.ts", "up"]);
  const show = (_target: string, path = ""): unknown => {
    if (!there.has(path)) throw new CairnError("not_found", `${path} is not in save point head`, { hint: "see" });
    return SHOWN_FILE;
  };
  const run = (word: string): ReturnType<typeof runFake> =>
    runFake(["show", word], { fake: fakeLibrary({ show }), cwd: `${ROOT}/sub` });
  for (const word of ["head:./main.ts", "head:sub/main.ts", "head:../up", "head:up"])
    assert.equal((await run(word)).status, 0, word);
  const { status, stderr } = await run("head:main.ts");
  assert.equal(status, 3);
  assert.match(
    stderr,
    /main\.ts is not in.*\n {2}did you mean head:sub\/main\.ts, which is head:\.\/main\.ts from the current folder\?/,
  );
  assert.match((await run("head:none")).stderr, /none is not in.*\n {2}see\n/);
});

test("a path that stands for a save point is named by the command for it, although no such file is on the disk", async () => {
  const none = (text: string): CairnError => new CairnError("invalid_id", `not a save point: ${text}`, { hint: "see" });
  const [points, paths] = [new Set(["head", "latest"]), new Set(["sub/gone.txt", "gone.md"])];
  const look = (target: string, path = ""): unknown => {
    if (!points.has(target)) throw none(target);
    if (!paths.has(path)) throw new CairnError("not_found", `${path} is not in ${target}`);
    return SHOWN_FILE;
  };
  const restore = ({ target }: { target: string }): unknown => look(target);
  const answers = {
    show: look,
    resolve: (word: string) => look(word, "gone.md"),
    restore,
    planRestore: restore,
    diff: look,
  };
  for (const [line, hint] of [
    ["restore gone.txt", "head has gone.txt: cairn restore head gone.txt"],
    ["restore gone.txt --plan", "head has gone.txt: cairn restore head gone.txt"],
    ["restore gone.txt ../gone.md", "head has gone.txt, ../gone.md: cairn restore head gone.txt ../gone.md"],
    ["restore ./gone.txt latest", "latest has ./gone.txt: cairn restore latest ./gone.txt"],
    ["restore lastest gone.txt", "see"],
    ["show gone.txt", "head has gone.txt: cairn show head:sub/gone.txt"],
    ["show haed", "see"],
    ["diff ../gone.md", "head has ../gone.md: cairn diff head --path ../gone.md"],
    ["diff gone.txt latest", "latest has gone.txt: cairn diff latest --path gone.txt"],
  ] as const) {
    const { stderr, status } = await runFake(line.split(" "), { fake: fakeLibrary(answers), cwd: `${ROOT}/sub` });
    assert.deepEqual([status, stderr.split("\n")[1]?.trim()], [2, hint], `${line}: ${stderr}`);
  }
  for (const [line, hint] of [
    ["fork ../try", "cairn fork head ../try"],
    ["fork latest", "cairn fork latest DIR"],
  ] as const)
    assert.match(
      (await runFake(line.split(" "), { fake: fakeLibrary(answers) })).stderr,
      new RegExp(`new folder\n  ${hint}\n`),
    );
});

test("a path in a workspace below the current folder is named by the command with -C", async () => {
  const fake = fakeLibrary();
  Object.assign(fake.library, {
    find: async (folder: string) => (folder.startsWith("/srv/mail") ? "/srv/mail" : null),
    open: async () => {
      throw new CairnError("not_a_workspace", "none", { hint: "see" });
    },
  });
  const hintOf = async (line: string): Promise<string | undefined> =>
    (await runFake(line.split(" "), { fake, cwd: "/srv" })).stderr.split("\n")[1]?.trim();
  const [begun, line] = ["in/a.eml lies in the workspace /srv/mail", "cairn -C /srv/mail restore"];
  assert.equal(await hintOf("restore mail/in/a.eml"), `${begun}: ${line} head in/a.eml`);
  assert.equal(await hintOf("restore head~2 mail/in/a.eml"), `${begun}: ${line} 'head~2' in/a.eml`);
  assert.equal(await hintOf("restore other/a.eml"), "see");
});

test("show does not take the colons of a time for the beginning of a path", async () => {
  const asked = async (word: string): Promise<unknown[]> =>
    argsOf((await runFake(["show", word])).fake, "show").slice(0, 2);
  assert.deepEqual(await asked("2026-11-23 14:00:src/a:b"), ["2026-11-23 14:00", "src/a:b"]);
  assert.deepEqual(await asked("14:00"), ["14:00", undefined]);
  assert.deepEqual(await asked("yesterday 9:30:59:a"), ["yesterday 9:30:59", "a"]);
  assert.deepEqual(await asked("yesterday:10:20"), ["yesterday", "10:20"]);
  assert.deepEqual(await asked("2026-11-23T14:00:00+01:00:a"), ["2026-11-23T14:00:00+01:00", "a"]);
  assert.deepEqual(await asked("1a2b:14:00"), ["1a2b", "14:00"]);
});

test("restore with the path of the root restores the whole workspace", async () => {
  const { fake } = await runFake(["restore", "head", "."]);
  assert.equal("paths" in (argsOf(fake, "restore")[0] as object), false);
});

test("cleanup with rules removes points, and shows only the plan without rules", async () => {
  const methods = async (line: string): Promise<string[]> =>
    (await runFake(line.split(" "))).fake.asked.map((asked) => asked.method).slice(2);
  assert.deepEqual(await methods("cleanup"), ["previewCleanup"]);
  assert.deepEqual(await methods("cleanup --keep-last 3 --plan"), ["previewCleanup"]);
  assert.deepEqual(await methods("cleanup --keep-last 3"), ["runCleanup"]);
  assert.deepEqual(await methods("cleanup drop 1a2b 5f6e"), ["runCleanup"]);
  assert.deepEqual(await methods("cleanup policy --keep-last 3"), ["setPolicy"]);
  assert.deepEqual(await methods("cleanup policy"), ["policy"]);
});

test("cleanup without rules completes a pending removal", async () => {
  const status = async (line: string, drop: string[]): Promise<[string[], number]> => {
    const previewCleanup = (): unknown => ({ ...CLEANUP, reclaimable_save_points: drop, removals_pending: true });
    const runCleanup = (): unknown => ({ removed: [], bytes_freed: 0, complete: false });
    const ran = await runFake(line.split(" "), { fake: fakeLibrary({ previewCleanup, runCleanup }) });
    return [ran.fake.asked.map((asked) => asked.method).slice(2), ran.status];
  };
  assert.deepEqual(await status("cleanup", []), [["previewCleanup", "runCleanup"], 10]);
  assert.deepEqual(await status("cleanup --plan", []), [["previewCleanup", "policy"], 0]);
  assert.deepEqual(await status("cleanup", ["a".repeat(32)]), [["previewCleanup"], 0]);
});

test("cleanup --apply passes the plan with the rules, points, paths or texts to the library", async () => {
  const asked = async (line: string, method: string): Promise<Record<string, unknown>> => {
    const { fake, status } = await runFake(line.split(" "));
    assert.equal(status, 0, line);
    return argsOf(fake, method)[0] as Record<string, unknown>;
  };
  const byRules = await asked("cleanup --keep-last 3 --apply abc", "runCleanup");
  assert.deepEqual([byRules["retention"], byRules["plan"]], [{ keepLast: 3 }, "abc"]);
  assert.equal((await asked("cleanup --apply abc", "runCleanup"))["plan"], "abc");
  const named = await asked("cleanup drop --force 1a2b --apply abc", "runCleanup");
  assert.deepEqual([named["only"], named["force"], named["plan"]], [["1a2b"], true, "abc"]);
  const paths = await asked("cleanup purge --path a --text b --apply abc", "removePaths");
  assert.deepEqual([paths["paths"], paths["text"], paths["plan"]], [["a"], ["b"], "abc"]);
  for (const line of ["", "drop x ", "purge --path a "])
    assert.equal((await runFake(`cleanup ${line}--plan --apply abc`.split(" "))).status, 2, line);
});

test("cleanup --plan prints the line that does exactly the plan", async () => {
  const last = async (line: string): Promise<string> =>
    (await runFake(line.split(" "))).stdout.trim().split("\n").at(-1)!;
  assert.match(
    await last("cleanup drop --force 1a2b 5f6e --plan"),
    /: cairn cleanup drop --force 1a2b 5f6e --apply \S+$/,
  );
  const rules = "--keep-last 3 --keep-daily unlimited --keep-tag a,b --keep-tag c --keep-undo 7 --max-size 2GiB";
  assert.match(await last(`cleanup ${rules} --plan`), new RegExp(`: cairn cleanup ${rules} --apply \\S+$`));
});

test("cleanup policy passes settings to the library, and rules are removed with --none", async () => {
  const { fake } = await runFake("cleanup policy --quota 1GiB --keep-trees 20".split(" "));
  assert.deepEqual(argsOf(fake, "setPolicy")[0], { quotaBytes: 2 ** 30, keptTrees: 20 });
  const none = await runFake("cleanup policy --none".split(" "));
  assert.deepEqual(argsOf(none.fake, "setPolicy")[0], { retention: null });
});

test("cleanup passes every rule to the library", async () => {
  const line =
    "cleanup --plan --keep-last 1 --keep-within 1y6m --keep-hourly 2 --keep-daily 3 --keep-weekly 4 --keep-monthly 5 --keep-yearly 6 --keep-within hourly:2d --keep-within daily:3d --keep-within weekly:4w --keep-within monthly:5m --keep-within yearly:6y --keep-tag a --keep-tag b --keep-undo 7 --keep-undo 30d --max-size 2GiB --max-age 90d";
  const { fake } = await runFake(line.split(" "));
  assert.deepEqual((argsOf(fake, "previewCleanup")[0] as { retention: unknown }).retention, {
    keepLast: 1,
    keepWithin: "1y6m",
    keepHourly: 2,
    keepDaily: 3,
    keepWeekly: 4,
    keepMonthly: 5,
    keepYearly: 6,
    keepWithinHourly: "2d",
    keepWithinDaily: "3d",
    keepWithinWeekly: "4w",
    keepWithinMonthly: "5m",
    keepWithinYearly: "6y",
    keepTags: ["a", "b"],
    keepUndo: { count: 7, within: "30d" },
    maxBytes: 2 * 1024 ** 3,
    maxAge: "90d",
  });
});

test("counts of rules may be unlimited, and --keep-tag may name several tags or none", async () => {
  const line = "cleanup --plan --keep-last unlimited --keep-daily 3 --keep-tag a,b --keep-tag";
  const { fake } = await runFake([...line.split(" "), ""]);
  assert.deepEqual((argsOf(fake, "previewCleanup")[0] as { retention: unknown }).retention, {
    keepLast: "unlimited",
    keepDaily: 3,
    keepTags: ["a,b", ""],
  });
  for (const wrong of ["-1", "many", ""]) {
    const { status } = await runFake(["cleanup", "--plan", "--keep-last", wrong]);
    assert.equal(status, 2, wrong);
  }
});

test("only commands that save make a folder a workspace", async () => {
  const nowhere = { find: () => null, open: () => Promise.reject(new CairnError("not_a_workspace", "no")) };
  const released = await runJson(["release", "."], { fake: fakeLibrary({ ...nowhere, forget: () => false }, true) });
  assert.deepEqual([released.status, released.envelope.error?.code], [3, "not_a_workspace"]);
  for (const line of [
    "status /",
    "history /",
    "diff",
    "undo",
    "verify --all",
    "doctor",
    "store",
    "seal",
    "cleanup",
    "view",
  ]) {
    const { status, envelope, fake } = await runJson(line.split(" "), { fake: fakeLibrary(nowhere, true) });
    assert.deepEqual([status, envelope.error?.code], [3, "not_a_workspace"], line);
    assert.ok(!fake.asked.some(({ method }) => /adopt/i.test(method)), line);
  }
  const missing = await runJson(["status", "/not/there"], { fake: fakeLibrary(nowhere, true) });
  assert.deepEqual([missing.status, missing.envelope.error?.code], [3, "not_a_workspace"]);
  const saving = await runFake(["save"], { fake: fakeLibrary(nowhere, true) });
  assert.equal(saving.status, 0);
  assert.deepEqual(saving.fake.asked[1]?.args[0], ROOT);
  assert.match(saving.stderr, /^cairn: made \S+ a workspace \(engine copy\); its save points lie in \S+\n$/);
  const json = await runJson(["save"], { fake: fakeLibrary(nowhere, true) });
  assert.deepEqual([json.stderr, json.envelope.warnings.length], ["", 1]);
});

test("backup create of a point, or with --no-save, makes no folder a workspace", async () => {
  const nowhere = { find: () => null, open: () => Promise.reject(new CairnError("not_a_workspace", "no")) };
  const told = async (line: string): Promise<unknown[]> => {
    const { status, envelope, fake } = await runJson(line.split(" "), { fake: fakeLibrary(nowhere, true) });
    return [status, envelope.error?.code, fake.asked.map(({ method }) => method)];
  };
  assert.deepEqual(await told("backup create -r x -C / --no-save"), [3, "not_a_workspace", ["open", "find"]]);
  assert.deepEqual(await told("backup create -r x --no-save"), [3, "not_a_workspace", ["find", "open"]]);
  assert.deepEqual(await told("backup create -r x -C / head~3"), [3, "not_a_workspace", ["open", "find"]]);
  const saving = await runJson(["backup", "create", "-r", "x", "-C", "/"], { fake: fakeLibrary(nowhere, true) });
  assert.deepEqual([saving.status, saving.envelope.warnings.length], [0, 1]);
});

test("help between a group and its verb prints the verb's help", async () => {
  const [behind, before] = [await runFake(["backup", "help", "restore"]), await runFake(["help", "backup", "restore"])];
  assert.deepEqual([behind.status, behind.stdout], [0, before.stdout]);
  assert.match(behind.stdout, /^Usage: cairn backup restore /);
  const group = await runFake(["backup", "help"]);
  assert.deepEqual([group.status, group.stdout], [0, (await runFake(["help", "backup"])).stdout]);
});

test("backup restore --in-place names alternatives if the folder is missing", async () => {
  const nowhere = { open: () => Promise.reject(new CairnError("not_a_workspace", "no", { hint: "save it once" })) };
  const restore = ["backup", "restore", "latest", "--in-place", "-r", "x", "-C"];
  const absent = await runJson([...restore, "/nowhere/a b"], { fake: fakeLibrary(nowhere) });
  assert.deepEqual([absent.status, absent.envelope.error?.code], [3, "not_a_workspace"]);
  assert.equal(
    absent.envelope.error?.hint,
    "create it first (mkdir -p '/nowhere/a b'), or restore with --to '/nowhere/a b' instead",
  );
});

test("the client is closed after a failed command", async () => {
  const ran = await runFake(["status"], { fake: fakeLibrary({ status: () => Promise.reject(new Error("x")) }) });
  assert.equal(ran.fake.closed, 1);
});

test("a folder that is named like a group does not hide the group", async () => {
  for (const line of ["-C cleanup cleanup policy --none", "-C backup backup use", "-C help help cleanup drop"]) {
    const words = line.split(" ");
    const parsed = await parse(words);
    assert.equal(parsed.name, words[2] === "help" ? "cleanup drop" : words.slice(2, 4).join(" "), line);
  }
});

test("commandNameOf finds the command's name after options", () => {
  assert.equal(commandNameOf(["-C", "save", "--json", "history"]), "history");
  assert.equal(commandNameOf(["--control-dir=x", "save"]), "save");
  assert.equal(commandNameOf(["--json"]), undefined);
  assert.equal(asksForJson(["run", "--", "x", "--json"]), false);
  assert.equal(asksForJson(["run", "--json", "--", "x"]), true);
});
