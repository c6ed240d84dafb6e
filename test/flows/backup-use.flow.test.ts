import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { hasCode } from "../../src/keep/testing-folder.ts";
import { cairn, cairnOk, type Outcome, SCRATCH, startCairn } from "../fixtures/command.ts";
import { whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { newRepository, type TestRepository } from "../fixtures/repository.ts";
import { Terminal } from "../fixtures/terminal.ts";
import { ageRuns } from "../fixtures/schedule.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

interface Kept {
  folder: string;
  place: TestRepository;
  /** A command in the folder, with no word of the repository. */
  here(...words: string[]): Outcome;
  file: string;
}

/** A folder for which a repository is kept. */
async function keptFor(name: string, ...words: string[]): Promise<Kept> {
  const place = await newRepository(`${name}-repository`);
  const folder = newFolder(name);
  fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
  cairnOk(["backup", "use", ...place.options, ...words], { cwd: folder });
  const { controlDirectory } = await clientOf(folder);
  const file = path.join(controlDirectory, "workspaces/main/repository.json");
  return { folder, place, file, here: (...line) => cairnOk(line, { cwd: folder }) };
}

test("each backup command uses the repository set by backup use if no repository is named", async () => {
  const { folder, place, here, file } = await keptFor("kept");
  const data = here("backup", "create").data as { location: string; snapshot: { snapshot_id: string } };
  assert.equal(data.location, place.location);
  for (const verb of [
    "list",
    "verify",
    "stats",
    "prune",
    "unlock",
    "show latest",
    "cat config",
    "key list",
    "find letter",
  ])
    assert.equal(here("backup", ...verb.split(" ")).data["location"], place.location, verb);
  const to = path.join(SCRATCH, "kept-back");
  here("backup", "restore", "latest", "--to", to);
  assert.equal(fs.readFileSync(path.join(to, "letter"), "utf8"), "dear Ben");
  // Of a folder that is named, from elsewhere, and from below.
  fs.mkdirSync(path.join(folder, "below"));
  assert.equal(cairnOk(["backup", "create", folder], { cwd: SCRATCH }).data["location"], place.location);
  assert.equal(cairnOk(["-C", folder, "backup", "list"], { cwd: SCRATCH }).data["location"], place.location);
  assert.equal(cairnOk(["backup", "list"], { cwd: path.join(folder, "below") }).data["location"], place.location);
  const text = fs.readFileSync(file, "utf8");
  assert.equal(fs.statSync(file).mode & 0o777, 0o600);
  assert.ok(!text.includes(fs.readFileSync(place.passwordFile, "utf8").trim()));
  assert.equal(cairnOk(["inspect", file]).data["format"], "kept-repository");
});

test("a repository from the command line or the environment overrides the repository set by backup use", async () => {
  const { folder, here, place } = await keptFor("named");
  const other = await newRepository("other");
  assert.equal(here("backup", "list", ...other.options).data["location"], other.location);
  const env = { RESTIC_REPOSITORY: other.location, RESTIC_PASSWORD_FILE: other.passwordFile };
  assert.equal(cairnOk(["backup", "list"], { cwd: folder, env }).data["location"], other.location);
  // A password in the environment is of the repository there, and the kept one goes with its own.
  const password = { RESTIC_PASSWORD: "of another" };
  assert.equal(cairnOk(["backup", "list"], { cwd: folder, env: password }).data["location"], place.location);
});

test("RESTIC_REPOSITORY_FILE names a file that has the repository's address", async () => {
  const { folder, place } = await keptFor("by-file");
  const other = await newRepository("by-file-other");
  const file = path.join(SCRATCH, "repository-name");
  fs.writeFileSync(file, `\n${other.location}\n`);
  const env = { RESTIC_REPOSITORY_FILE: file, RESTIC_PASSWORD_FILE: other.passwordFile };
  assert.equal(cairnOk(["backup", "list"], { cwd: folder, env }).data["location"], other.location);
  assert.equal(cairnOk(["backup", "list", ...place.options], { cwd: folder, env }).data["location"], place.location);
  fs.writeFileSync(file, "\n");
  assert.match(cairn(["backup", "list"], { cwd: folder, env }).error!.message, /repository-name names no repository/);
  fs.rmSync(file);
  assert.equal(cairn(["backup", "list"], { cwd: folder, env }).error!.code, "not_found");
});

test("backup create takes the snapshot's host from RESTIC_HOST if --host is not given", async () => {
  const { folder } = await keptFor("host");
  const made = (...words: string[]): unknown => {
    const env = { RESTIC_HOST: "of-the-environment" };
    const data = cairnOk(["backup", "create", ...words], { cwd: folder, env }).data as {
      snapshot: { hostname: string };
    };
    return data.snapshot.hostname;
  };
  assert.deepEqual([made(), made("--host", "named")], ["of-the-environment", "named"]);
});

test("backup init refuses user@host:/path without a scheme and suggests sftp:", () => {
  const cwd = newFolder("elsewhere");
  const { status, error } = cairn(["backup", "init", "-r", "user@host:/srv/b"], { cwd, env: { CAIRN_PASSWORD: "x" } });
  assert.deepEqual(
    [status, error!.hint],
    [2, "use sftp:user@host:/srv/b; for a folder of this name on this machine begin with ./ or local:"],
  );
  assert.deepEqual(fs.readdirSync(cwd), []);
});

test("backup use shows, changes and removes the folder's repository and rules", async () => {
  const { folder, place, here } = await keptFor("shown", "--keep-daily", "7", "--keep-tag", "release");
  const retention = { keep_daily: 7, keep_tags: ["release"] };
  const kept = {
    repository: place.location,
    password_file: place.passwordFile,
    password_command: null,
    age_identity: null,
    on_failure: null,
    probe: [],
    retention,
    good_at: null,
  };
  assert.deepEqual(here("backup", "use").data["kept"], kept);
  const command = `cat ${place.passwordFile}`;
  const byCommand = { ...kept, password_file: null, password_command: command };
  assert.deepEqual(here("backup", "use", "--password-command", command).data["kept"], byCommand);
  const ruled = { ...byCommand, retention: { keep_last: 3 } };
  assert.deepEqual(here("backup", "use", "--keep-last", "3").data["kept"], ruled);
  assert.deepEqual(here("backup", "use", "-r", place.location, "--password-file", place.passwordFile).data["kept"], {
    ...ruled,
    password_file: place.passwordFile,
    password_command: null,
  });
  assert.equal(here("backup", "use", "--none").data["kept"], null);
  assert.equal(here("backup", "use").data["kept"], null);
  const without = cairn(["backup", "list"], { cwd: folder });
  assert.equal(without.status, 2);
  assert.match(without.error?.message ?? "", /no repository is named/);
});

test("backup use -r keeps the password, rules and alarm of a moved repository, and errors name the line for it", async () => {
  const { folder, place, here, file } = await keptFor("moved", "--keep-daily", "3", "--on-failure", "true");
  const kept = (): Record<string, unknown> => here("backup", "use").data["kept"] as Record<string, unknown>;
  here("backup", "create");
  const { good_at, ...settings } = kept();
  assert.notEqual(good_at, null);
  assert.deepEqual(here("backup", "use", "-r", place.location).data["kept"], { ...settings, good_at });
  here("backup", "create");
  const moved = `${place.location}-moved`;
  fs.renameSync(place.location, moved);
  for (const line of [
    ["backup", "create"],
    ["backup", "list"],
  ]) {
    const { code, hint } = cairn(line, { cwd: folder }).error!;
    assert.equal(code, "not_found");
    const words = `if the repository was moved: \`cairn backup use ${folder} -r NEW\``;
    assert.ok(hint!.startsWith("check that its disk is mounted") && hint!.endsWith(words), hint!);
  }
  // Another one at its place, as if made below a disk that is not mounted.
  cairnOk(["backup", "init", ...place.options]);
  const { code, hint } = cairn(["backup", "create"], { cwd: folder }).error!;
  assert.deepEqual([code, hint!.includes(`backup use ${folder} -r ${place.location}`)], ["refused", true]);
  ageRuns(25);
  assert.match(cairn(["due"], { cwd: folder }).error!.message, /not the repository of this folder's former backups/);
  here("backup", "use", "-r", place.location);
  here("backup", "create");
  fs.rmSync(place.location, { recursive: true });
  // A repository that the line names is not the kept one.
  assert.doesNotMatch(cairn(["backup", "list", ...place.options], { cwd: folder }).error!.hint!, /was moved/);
  const now = cairnOk(["backup", "use", folder, "-r", moved], { cwd: SCRATCH });
  assert.deepEqual(now.data["kept"], { ...settings, repository: moved, good_at: null });
  here("backup", "create");
  // A damaged record is replaced, with a warning.
  fs.writeFileSync(file, "{");
  const again = cairnOk(["backup", "use", "-r", moved, "--password-file", place.passwordFile], { cwd: folder });
  assert.match(again.warnings.join("\n"), /the former settings were not kept: /);
  assert.equal(kept()["retention"], null);
});

test("backup use refuses a repository that cannot be opened, and an address that has a password", async () => {
  const { folder, here, place } = await keptFor("refused");
  const wrong = cairn(["backup", "use", "-r", place.location, "--password-command", "echo wrong"], { cwd: folder });
  assert.equal(wrong.error?.code, "wrong_password");
  const absent = cairn(["backup", "use", "-r", `${place.location}-not`, "--password-file", place.passwordFile], {
    cwd: folder,
  });
  assert.equal(absent.error?.code, "not_found");
  assert.equal((here("backup", "use").data["kept"] as { repository: string }).repository, place.location);
  const client = await clientOf(folder);
  const keeping = client.setBackupRepository({ repository: "rest:https://me:secret@host/" });
  await assert.rejects(keeping, (error) => hasCode("usage")(error) && !String(error).includes("secret"));
  const both = client.setBackupRepository({ passwordFile: "/a", passwordCommand: "b" });
  await assert.rejects(both, hasCode("usage"));
  const none = await clientOf(newFolder());
  await assert.rejects(none.setBackupRepository({ retention: { keepLast: 1 } }), hasCode("usage"));
});

test("the repository set by backup use follows a renamed folder with the next backup", async () => {
  const { folder, place } = await keptFor("renamed");
  cairnOk(["backup", "create", folder]);
  const now = `${folder}-now`;
  fs.renameSync(folder, now);
  const looked = cairn(["status"], { cwd: now });
  assert.equal(looked.error?.code, "not_a_workspace");
  const done = cairnOk(["backup", "create"], { cwd: now });
  assert.equal(done.data["location"], place.location);
  assert.match(done.warnings.join("\n"), /its save points now belong to the new path/);
  assert.equal(cairnOk(["backup", "list"], { cwd: now }).data["location"], place.location);
});

test("backup forget applies the rules of backup use only to this folder's snapshots of this host", async () => {
  const { folder, place, here } = await keptFor("forget", "--keep-last", "1");
  const ids = (): string[] =>
    (here("backup", "list").data["snapshots"] as { snapshot_id: string }[]).map((each) => each.snapshot_id);
  const other = newFolder("not-ours");
  for (const content of ["one", "two"]) {
    for (const each of [folder, other]) {
      fs.writeFileSync(path.join(each, "letter"), content);
      cairnOk(["backup", "create", ...place.options], { cwd: each });
    }
    cairnOk(["backup", "create", ...place.options, "--host", "elsewhere"], { cwd: folder });
  }
  assert.equal(ids().length, 6);
  const groups = here("backup", "forget", "--plan").data["groups"] as { hostname: string; paths: string[] }[];
  assert.deepEqual(
    groups.map(({ hostname, paths }) => [hostname, paths]),
    [[os.hostname(), [folder]]],
  );
  here("backup", "forget", "--prune");
  assert.equal(ids().length, 5);
  // The host is called there as a backup calls it.
  const env = { RESTIC_HOST: "elsewhere" };
  const there = cairnOk(["backup", "forget", "--plan"], { cwd: folder, env }).data["groups"] as {
    hostname: string;
  }[];
  assert.deepEqual(
    there.map(({ hostname }) => hostname),
    ["elsewhere"],
  );
  // Rules that are named are for all, as without a kept repository.
  here("backup", "forget", "--keep-last", "1");
  assert.equal(ids().length, 3);
  const unruled = await keptFor("unruled");
  const refused = cairn(["backup", "forget"], { cwd: unruled.folder });
  assert.equal(refused.status, 2);
});

test(
  "backup commands refuse a repository setting that belongs to another user",
  { skip: whyNoOrdinaryUser() ?? false },
  async () => {
    const { folder, place, file } = await keptFor("others");
    const proof = path.join(SCRATCH, "others-ran");
    const record = JSON.parse(fs.readFileSync(file, "utf8")) as object;
    fs.writeFileSync(
      file,
      `${JSON.stringify({ ...record, password_file: null, password_command: `touch ${proof}` })}\n`,
    );
    fs.chownSync(file, 65534, 65534);
    for (const line of [
      ["backup", "list"],
      ["backup", "create"],
      ["backup", "use"],
      ["backup", "use", "--keep-last", "1"],
    ]) {
      const refused = cairn(line, { cwd: folder });
      assert.equal(refused.error?.code, "refused", line.join(" "));
    }
    assert.ok(!fs.existsSync(proof));
    assert.equal(cairnOk(["backup", "list", ...place.options], { cwd: folder }).status, 0);
    cairnOk(["backup", "use", ...place.options], { cwd: folder });
    assert.equal(cairnOk(["backup", "list"], { cwd: folder }).data["location"], place.location);
  },
);

test("the --on-failure command runs when backups begin to fail and when they succeed again", async () => {
  const told = path.join(SCRATCH, "alarm-told");
  const { folder, place, here, file } = await keptFor("alarm", "--on-failure", `cat >> ${told}`);
  const lines = (): Record<string, unknown>[] =>
    fs.existsSync(told)
      ? fs
          .readFileSync(told, "utf8")
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as Record<string, unknown>)
      : [];
  assert.equal((here("backup", "use").data["kept"] as { on_failure: string }).on_failure, `cat >> ${told}`);
  here("backup", "create");
  fs.renameSync(place.location, `${place.location}-away`);
  // A repository on the line is none of the kept one's business.
  cairn(["backup", "create", ...place.options], { cwd: folder });
  assert.deepEqual(lines(), []);
  for (let i = 0; i < 2; i++) assert.equal(cairn(["backup", "create"], { cwd: folder }).error?.code, "not_found");
  const [failed, ...more] = lines();
  assert.deepEqual(more, []);
  assert.deepEqual([failed!["what"], failed!["state"], failed!["repository"]], ["backup", "failed", place.location]);
  assert.deepEqual(failed!["workspace"], { name: path.basename(folder), path: folder });
  assert.deepEqual([failed!["host"], (failed!["error"] as { code: string }).code], [os.hostname(), "not_found"]);
  assert.ok(String(failed!["last_success_at"]) < String(failed!["since"]));
  fs.renameSync(`${place.location}-away`, place.location);
  for (let i = 0; i < 2; i++) here("backup", "create");
  assert.deepEqual(
    lines().map(({ state }) => state),
    ["failed", "well"],
  );
  assert.equal(lines()[1]!["since"], failed!["since"]);
  assert.equal(cairnOk(["inspect", file]).data["format"], "kept-repository");
  // An alarm that cannot be called is a warning, and is called by the next backup that fails.
  here("backup", "use", "--on-failure", `test -e ${told}-on && cat >> ${told}`);
  fs.renameSync(place.location, `${place.location}-away`);
  const unheard = cairn(["backup", "create"], { cwd: folder });
  assert.match(unheard.warnings.join("\n"), /the alarm's command ended with status 1/);
  fs.writeFileSync(`${told}-on`, "");
  cairn(["backup", "create"], { cwd: folder });
  assert.equal(lines().length, 3);
  fs.renameSync(`${place.location}-away`, place.location);
  assert.equal((here("backup", "use", "--on-failure", "").data["kept"] as { on_failure: null }).on_failure, null);
  here("backup", "create");
  assert.equal(lines().length, 3);
  const refused = cairn(["backup", "use", "--on-failure", "ftp://host/"], { cwd: folder });
  assert.equal(refused.error?.code, "usage");
});

test("several `cairn due` at once make one snapshot of a folder, and none after the first", async () => {
  const { folder, here } = await keptFor("due-at-once");
  const snapshots = (): number => (here("backup", "list").data["snapshots"] as unknown[]).length;
  const dueAtOnce = async (): Promise<(string | null)[]> => {
    const ended = await Promise.all([1, 2, 3].map(async () => startCairn(["due"], { cwd: folder }).ended));
    return ended.map(({ data }) => {
      const own = (data["folders"] as { path: string; snapshot_id: string | null; error: unknown }[]).find(
        ({ path: at }) => at === folder,
      )!;
      assert.equal(own.error, null);
      return own.snapshot_id;
    });
  };
  const made = await dueAtOnce();
  assert.deepEqual([made.filter((id) => id !== null).length, snapshots()], [1, 1]);
  assert.deepEqual([await dueAtOnce(), snapshots()], [[null, null, null], 1]);
});

test("backup use in a script refuses a repository without a kept password, and keeps nothing", async () => {
  const place = await newRepository("unkept");
  const folder = newFolder("unkept-folder");
  const env = { CAIRN_PASSWORD_FILE: place.passwordFile };
  const { status, error } = cairn(["backup", "use", folder, "-r", place.location], { env });
  assert.deepEqual([status, error!.code], [2, "usage"]);
  assert.match(error!.hint!, /--password-file FILE/);
  assert.equal(cairn(["-C", folder, "backup", "use"]).error!.code, "not_a_workspace");
});

test("backup use exits 10 if the password's source works only with the variables of the person's shell", async () => {
  const place = await newRepository("bare");
  const folder = newFolder("bare-folder");
  const words = ["backup", "use", folder, "-r", place.location, "--password-command", 'cat "$PASSWORD_AT"'];
  const { status, warnings, data } = cairn(words, { env: { PASSWORD_AT: place.passwordFile } });
  assert.equal(status, 10);
  assert.match(
    warnings.join(),
    /as the timer and cron run, the repository does not open: .*password command ended with status 1/,
  );
  assert.equal((data["kept"] as { repository: string }).repository, place.location);
});

test("backup use on a terminal offers to keep the typed password, and the kept file works without a terminal", async (t) => {
  const place = await newRepository("typed");
  const password = fs.readFileSync(place.passwordFile, "utf8").trim();
  const folder = newFolder("typed-folder");
  const answer = async (key: string): Promise<number> => {
    const terminal = new Terminal(t, ["backup", "use", folder, "-r", place.location], SCRATCH);
    await terminal.type("password of", `${password}\r`);
    await terminal.type("so that the timer can back up? [y/N]", `${key}\r`);
    return terminal.ended();
  };
  assert.equal(await answer("n"), 2);
  assert.equal(cairn(["-C", folder, "backup", "use"]).error!.code, "not_a_workspace");
  assert.equal(await answer("y"), 0);
  const { password_file: file } = cairnOk(["-C", folder, "backup", "use"]).data["kept"] as { password_file: string };
  assert.equal(fs.statSync(file).mode & 0o777, 0o600);
  assert.equal(cairnOk(["-C", folder, "backup", "list"]).data["location"], place.location);
  // A changed password: scheduled backups read the former one from the kept file.
  const change = async (key: string): Promise<number> => {
    const terminal = new Terminal(t, ["-C", folder, "backup", "key", "passwd"], SCRATCH);
    await terminal.type("new password", "second\r");
    await terminal.type("repeat the password", "second\r");
    await terminal.type("read it? [y/N]", `${key}\r`);
    return terminal.ended();
  };
  assert.equal(await change("y"), 0);
  assert.equal(fs.readFileSync(file, "utf8"), "second\n");
  fs.writeFileSync(place.passwordFile, "third");
  const words = ["-C", folder, "backup", "key", "passwd", "-r", place.location, "--password-file", file];
  const changed = cairnOk([...words, "--new-password-file", place.passwordFile]);
  assert.match(changed.warnings.join(), new RegExp(`fail until ${file} gives the new password`));
  fs.writeFileSync(file, "third");
  assert.deepEqual(cairnOk(["-C", folder, "backup", "list"]).data["snapshots"], []);
});
