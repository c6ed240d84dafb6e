import assert from "node:assert/strict";
import { test } from "node:test";
import { COMMANDS } from "./commands/index.ts";
import { GLOBAL_OPTIONS, type Taken } from "./definitions.ts";
import { lineForList, NOTES, OTHER_COMMANDS, OTHER_VERBS } from "./other-words.ts";
import { runJson } from "./testing-run.ts";

/** Lines as people of other tools write them, and what they are told first. */
const ANSWERS: [string, string][] = [
  ["delete x", "here it is: cairn cleanup --only POINT; "],
  ["log", "here it is: cairn history; "],
  ["cleanup --dry-run", "here it is: --plan; "],
  ["cleanup -n", "here it is: --plan; "],
  ["save -n", "`cairn status` says what has changed, and saves nothing; "],
  ["save -v", "here it is: --progress plain; "],
  ["save -x", "it is so by default; --cross-mounts goes into"],
  ["-v", "here it is: -V, --version; "],
  ["backup snapshots", "here it is: cairn backup list; "],
  ["backup migrate", "repositories of version 1 and 2 are used as they are; "],
  ["backup cache", "what can be made again lies in ~/.cache/cairn"],
  ["backup self-update", "Cairn is renewed by what installed it; "],
  ["backup create -n", "here it is: --dry-run; "],
  ["backup create --force", "here it is: --reread; "],
  ["backup create -H me", "here it is: --host; "],
  ["backup create --files-from=x", "name one folder, "],
  ["backup create --one-file-system", "it is so by default; --cross-mounts"],
  ["backup create --iexclude x", "patterns of --exclude and --exclude-file tell upper and lower case apart"],
  ["backup create --compression max", "what compresses is always compressed"],
  ["backup create --time now", "a snapshot has the time of its save point; "],
  ["backup list --no-lock", "what only reads takes its lock where"],
  ["backup list --retry-lock 5m", "here it is: --lock-timeout; "],
  ["backup list --cacert x", "the variable RESTIC_CACERT names"],
  ["backup list --last", "here it is: --latest 1; "],
  ["backup list --cache-dir x", "the cache lies in ~/.cache/cairn; "],
  ["backup list keys -r x", "here it is: cairn backup key list"],
  ["backup list locks -r x", "here it is: cairn backup unlock"],
  ["backup list packs -r x", "here it is: cairn backup stats"],
  ["backup show latest /path -r x", "a path in a snapshot stands behind its name: latest:/path; "],
  ["backup verify --read-data", "it is so by default: every pack is read"],
  ["backup verify --read-data-subset 10%", "here it is: --subset; "],
  ["backup verify --read-data-subset=10%", "here it is: --subset; "],
  ["backup restore latest --target x", "here it is: --to; "],
  ["backup restore latest --verify", "it is so by default: what was written is read again"],
  ["backup restore latest --overwrite always", "--in-place makes the workspace's folder equal"],
  ["backup restore latest --delete", "--in-place makes the workspace's folder equal"],
  ["backup restore latest --include-file x", "patterns are given one by one: --include and --exclude"],
  ["backup copy --from-repo x", "-r names the source here and --to-repo the target, "],
  ["backup prune --max-repack-size 1G", "--max-unused is the share of a pack"],
  ["backup prune --max-unused 100M -r x", "it is of each pack: 0 frees"],
  ["backup key export -r x", "the keys lie in the repository's folder keys"],
  ["backup key change-passphrase -r x", "here it is: cairn backup key passwd"],
  ["backup mount x", "`cairn backup show -R SNAPSHOT` lists"],
  ["backup rename a b", "snapshots have ids, and no names; "],
  ["backup repository connect", "-r names one at each call"],
  ["backup snapshot create x", "here it is: cairn backup create; "],
  ["backup prune --keep-daily 7", "rules that keep are of `cairn backup forget --prune`"],
  ["backup forget -d 7", "here it is: --keep-daily; "],
  ["backup forget --keep-annual 7", "here it is: --keep-yearly; "],
  ["backup forget --glob-archives x", "snapshots have ids and tags, and no names: "],
  ["backup create --exclude-from x", "here it is: --exclude-file; "],
  ["backup create --patterns-from x", "here it is: --exclude-file, whose lines"],
  ["backup create --comment x", "here it is: --message; "],
  ["backup create --list", "`cairn backup diff` says what changed"],
  ["backup list --format x", "--json gives all that is known"],
  ["backup verify --verify-data", "it is so by default: every pack is read"],
  ["backup restore latest --stdout", "here it is: cairn backup show SNAPSHOT:FILE; "],
  ["backup restore latest --strip-components 2", "SNAPSHOT:FOLDER is what lies in FOLDER"],
  ["backup init --encryption repokey", "a repository is always encrypted"],
  ["backup stats --mode raw-data", "all of it is said at once"],
];

for (const [line, begin] of ANSWERS)
  test(`the words of another tool in cairn ${line} are answered with what is here`, async () => {
    const { status, envelope } = await runJson(line.split(" "));
    assert.deepEqual([status, envelope.error?.code], [2, "usage"]);
    assert.ok(envelope.error?.hint?.startsWith(begin), envelope.error?.hint ?? "no hint");
  });

test("a word of another tool is answered with no option when the command has none like it", async () => {
  assert.doesNotMatch((await runJson(["history", "--target", "x"])).envelope.error!.hint!, /--to/);
  assert.doesNotMatch((await runJson(["history", "--constructor"])).envelope.error!.hint!, /here it is/);
  assert.equal(lineForList("constructor"), null);
});

test("every command that other words are answered with is there", async () => {
  for (const line of [...Object.values(OTHER_COMMANDS), ...Object.values(OTHER_VERBS)]) {
    const [, command = "", verb = ""] = line.split(" ");
    const entry = COMMANDS[command];
    assert.ok(entry !== undefined || command === "--version", line);
    if (command === "backup") assert.ok((await entry!.load()).command.verbs?.[verb] !== undefined, line);
  }
});

test("every option that a note names is one of its command, and what it answers is none", async () => {
  const group = (await COMMANDS["backup"]!.load()).command;
  const wordsOf = ({ options = [] }: Taken): string[] =>
    [...options, ...GLOBAL_OPTIONS].flatMap(({ flags }) => flags.split(/[ ,]+/).filter((each) => each.startsWith("-")));
  for (const [name, notes] of Object.entries(NOTES)) {
    if (name === "") continue;
    const [command = "", verb] = name.split(" ");
    const definition: Taken =
      verb === undefined ? (await COMMANDS[command]!.load()).command : (await group.verbs![verb]!.load()).command;
    const known = name === "backup" ? wordsOf((await group.verbs!["list"]!.load()).command) : wordsOf(definition);
    for (const [option, note] of Object.entries(notes)) {
      assert.ok(!known.includes(option), `${name} has ${option}`);
      const elsewhere = note.replaceAll(/`[^`]*`/g, "");
      for (const [named = ""] of elsewhere.matchAll(/(?<![\w-])--?[a-z][a-z-]*/g))
        assert.ok(known.includes(named), `${name} ${option}: ${named}`);
    }
  }
});
