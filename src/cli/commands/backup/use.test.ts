import assert from "node:assert/strict";
import { test } from "node:test";
import { argsOf, fakeLibrary, ROOT } from "../../testing-fake-library.ts";
import { runFake } from "../../testing-run.ts";

const KEPT = {
  repository: "/srv/backups",
  password_file: "/root/.password",
  password_command: null,
  age_identity: null,
  on_failure: null,
  probe: [],
  good_at: null,
  retention: { keepDaily: 7, keepTags: ["release"] },
};

test("backup commands print the repository set by `backup use` unless -q, --json or -r is given", async () => {
  const told = async (...words: string[]): Promise<string> =>
    (await runFake(["backup", "list", ...words], { fake: fakeLibrary({ backupRepository: () => KEPT }) })).stderr;
  assert.equal(await told(), `cairn: using the repository /srv/backups, set for ${ROOT} by \`backup use\`\n`);
  for (const words of [["-q"], ["--json"], ["-r", "x"]]) assert.equal(await told(...words), "", words.join(" "));
});

test("backup use prints the set repository and the source of its password", async () => {
  const shown = async (kept: object | null): Promise<string[]> =>
    (await runFake(["backup", "use"], { fake: fakeLibrary({ backupRepository: () => kept }) })).stdout.split("\n");
  const head = `${ROOT} is backed up into /srv/backups`;
  const forget = "  forget: keep-daily 7, keep-tag release";
  const backedUp = "  last good backup: none yet";
  assert.deepEqual(await shown(KEPT), [head, "  password: in the file /root/.password", forget, backedUp, ""]);
  const command = { ...KEPT, password_file: null, password_command: "pass show b" };
  assert.deepEqual((await shown(command))[1], "  password: printed by pass show b");
  const age = { ...KEPT, age_identity: "/root/key" };
  assert.deepEqual((await shown(age))[1], "  password: in the file /root/.password, opened with /root/key");
  const asked = await shown({ ...KEPT, password_file: null, retention: null });
  assert.match(asked[1]!, /none is kept, so cron and the timer cannot back up/);
  assert.match(asked[2]!, /no rules/);
  const alarmed = await shown({ ...KEPT, on_failure: "https://hooks.example/secret" });
  assert.equal(alarmed[4], "  alarm: POST to https://hooks.example");
  const asking = await shown({ ...KEPT, probe: ["cat $DIR/a"] });
  assert.equal(asking[4], "  probe: cat $DIR/a");
  assert.deepEqual(await shown(null), [`no repository is set for ${ROOT}`, ""]);
});

test("backup use --probe sets probes without opening the repository, and '' removes them", async () => {
  const edits = async (...words: string[]): Promise<unknown> =>
    argsOf((await runFake(["backup", "use", ...words], { fake: fakeLibrary({}) })).fake, "setBackupRepository")[0];
  assert.deepEqual(await edits("--probe", "true", "--probe", "ls $DIR"), { probe: ["true", "ls $DIR"] });
  assert.deepEqual(await edits("--probe", ""), { probe: [] });
});

test("backup use accepts --allow and sets the repository", async () => {
  const { fake } = await runFake(["backup", "use", "/srv/new", "-r", "x", "--password-file", "p", "--allow", "nested"]);
  assert.deepEqual((argsOf(fake, "setBackupRepository")[0] as { repository: string }).repository, `${ROOT}/x`);
});
