import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { onMachine, type Ran, REAL_SYSTEMD, TOLD, UNITS, whyNoMachine } from "../fixtures/machine.ts";
import { ageRuns } from "../fixtures/schedule.ts";
import { newRepository } from "../fixtures/repository.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

/** Words of a unit's line, as systemd.syntax(7) reads them. */
function wordsOf(text: string, name: string): string[] {
  const lines = [...text.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, line]) => line!);
  const words = lines.flatMap((line) => line.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? []);
  return words.map((word) => word.replaceAll(/^"|"$/g, "").replaceAll(/\\(.)/g, "$1").replaceAll("%%", "%"));
}

/** Runs what the service runs, in the environment of a service. */
function runService(): Ran {
  const text = fs.readFileSync(path.join(UNITS, "cairn-due.service"), "utf8");
  const [program, ...args] = wordsOf(text, "ExecStart").map((word) => word.replaceAll("$$", "$"));
  const variables = wordsOf(text, "Environment").map((each): [string, string] => {
    const at = each.indexOf("=");
    return [each.slice(0, at), each.slice(at + 1)];
  });
  const env = { PATH: "/usr/bin:/bin", ...Object.fromEntries(variables) };
  return spawnSync(program!, args, { cwd: "/", encoding: "utf8", env });
}

test(
  "the timer's service saves changed folders, and backs up once a day with the rules of backup use",
  { skip: whyNoMachine() },
  async () => {
    const place = await newRepository("timer-repository");
    const [kept, plain] = [newFolder("timer-kept"), newFolder("timer-plain")];
    const write = (text: string): void => {
      for (const each of [kept, plain]) fs.writeFileSync(path.join(each, "letter"), text);
    };
    write("dear Ben");
    cairnOk(["backup", "use", kept, ...place.options, "--keep-last", "1"]);
    cairnOk(["init", plain]);
    const points = (folder: string): number =>
      (cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[]).length;
    const snapshots = (): string[] =>
      (cairnOk(["-C", kept, "backup", "list"]).data["snapshots"] as { snapshot_id: string }[]).map(
        ({ snapshot_id: id }) => id,
      );
    const counts = (): number[] => [points(kept), points(plain), snapshots().length];
    const ran = (): unknown[] => {
      const { status, stdout, stderr } = runService();
      return [status, stdout, stderr];
    };

    const installed = onMachine("cairn service install --timer");
    assert.equal(installed.status, 0, installed.stderr);
    assert.deepEqual(fs.readdirSync(UNITS).toSorted(), ["cairn-due.service", "cairn-due.timer"]);
    assert.equal(fs.readFileSync(TOLD, "utf8"), "show-environment\ndaemon-reload\nenable --now cairn-due.timer\n");
    assert.deepEqual(ran(), [0, "", ""]);
    assert.deepEqual(counts(), [1, 1, 1]);
    assert.deepEqual(ran(), [0, "", ""]);
    assert.deepEqual(counts(), [1, 1, 1], "nothing is due");

    write("dear Cleo");
    ageRuns(22);
    const [first] = snapshots();
    fs.renameSync(place.location, `${place.location}-away`);
    assert.deepEqual(ran(), [0, "", ""], "no repository is opened");
    fs.renameSync(`${place.location}-away`, place.location);
    assert.deepEqual([...counts(), snapshots()[0]], [2, 2, 1, first], "saved, and not backed up");
    ageRuns(2);
    assert.deepEqual(ran(), [0, "", ""]);
    assert.deepEqual(counts(), [2, 2, 1], "the kept rules leave one snapshot");
    assert.notEqual(snapshots()[0], first);

    write("dear Dan");
    ageRuns(24);
    fs.renameSync(place.location, `${place.location}-away`);
    const [status, , said] = ran();
    assert.equal(status, 3);
    assert.match(String(said), /timer-kept.*: .*no repository/);
    fs.renameSync(`${place.location}-away`, place.location);
    assert.deepEqual(counts(), [3, 3, 1], "a repository that is away keeps no folder from being saved");
    ageRuns(0.2);
    assert.deepEqual(ran(), [0, "", ""]);
    const old = spawnSync(process.execPath, [buildCommand(), "backup", "due", "-q"], { encoding: "utf8" });
    assert.deepEqual([old.status, old.stderr], [0, ""], "the line of an earlier version");
    assert.deepEqual((cairnOk(["due"]).data["folders"] as { error: null }[]).length, 2);
    const lost = [newFolder("timer-lost-1"), newFolder("timer-lost-2")];
    for (const each of lost) {
      cairnOk(["init", each]);
      fs.rmSync((await clientOf(each)).controlDirectory, { recursive: true });
    }
    const [failed, , names] = ran();
    assert.notEqual(failed, 0);
    for (const each of lost) assert.ok(String(names).includes(each), "each folder that failed is named");
    for (const each of lost) fs.rmSync(each, { recursive: true });
    fs.rmSync(plain, { recursive: true });
    assert.deepEqual(ran(), [0, "", ""], "a deleted folder without backups is no failure");
    ageRuns(24);
    fs.renameSync(kept, `${kept}-away`);
    assert.match(String(ran()[2]), /timer-kept/, "a deleted folder whose backup is due is one");
    fs.renameSync(`${kept}-away`, kept);

    const refused = onMachine("cairn service install --json");
    assert.match(refused.stdout, /"code":"refused"/);
    // The recorded program answers nothing, as for a unit that is neither enabled nor active.
    const shown = onMachine("cairn service status --json");
    const { data, error } = JSON.parse(shown.stdout) as {
      data: { runner: { kind: string; problems: string[] }; folders: { path: string }[] };
      error: { code: string; message: string };
    };
    assert.deepEqual([shown.status, error.code, data.runner.kind], [4, "overdue", "timer"]);
    assert.match(data.runner.problems.join("\n"), /cairn-due\.timer is not enabled.*\n.*is not active/);
    const removed = onMachine("cairn service uninstall");
    assert.equal(removed.status, 0, removed.stderr);
    assert.deepEqual(fs.readdirSync(UNITS), []);
    assert.match(fs.readFileSync(TOLD, "utf8"), /\ndisable --now cairn-due\.timer\ndaemon-reload\n$/);
    assert.doesNotMatch(onMachine("cairn service status").stderr, /timer/);
  },
);

test("without systemd, service install --timer only prints a crontab line that works", { skip: whyNoMachine() }, () => {
  const folder = newFolder("cron");
  fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
  cairnOk(["init", folder]);
  const done = onMachine("cairn service install --timer --json", { hasSystemd: false });
  assert.equal(done.status, 10, done.stderr);
  const { data } = JSON.parse(done.stdout) as { data: { unit: null; started: boolean; text: string } };
  assert.deepEqual([data.unit, data.started, fs.readdirSync(UNITS)], [null, false, []]);
  const [, line] = /^\*\/10(?: \*){4} {2}(.*)$/.exec(data.text)!;
  const command = line!.replaceAll("\\%", "%");
  const env = { SHELL: "/bin/sh", PATH: "/usr/bin:/bin", HOME: process.env["HOME"]! };
  const ran = spawnSync("/bin/sh", ["-c", command], { cwd: "/", encoding: "utf8", env });
  assert.deepEqual([ran.status, ran.stdout, ran.stderr], [0, "", ""]);
  const points = cairnOk(["-C", folder, "history"]).data["save_points"] as { cause: unknown }[];
  assert.deepEqual(
    points.map(({ cause }) => cause),
    [{ kind: "schedule" }],
  );
  // Nobody has put the line into a crontab.
  const told = onMachine(`cairn -C ${folder} schedule`, { hasSystemd: false });
  assert.match(told.stdout, /^save .*due in/m);
  assert.match(told.stderr, /^cairn: nothing known runs the schedule: `cairn service install --timer`/m);
});

test(
  "service install --timer refuses a folder without a kept password, and exits 10 if a repository does not open",
  {
    skip: whyNoMachine(),
  },
  async () => {
    const place = await newRepository("install-repository");
    const folder = newFolder("install-kept");
    const client = await clientOf(folder);
    await client.setBackupRepository({ repository: place.location });
    for (const hasSystemd of [true, false]) {
      const refused = onMachine("cairn service install --timer --json", { hasSystemd });
      const { error } = JSON.parse(refused.stdout) as { error: { message: string; hint: string } };
      assert.deepEqual([refused.status, fs.readdirSync(UNITS)], [2, []]);
      assert.ok(error.hint.includes(`cairn backup use ${folder} --password-file FILE`), error.hint);
    }
    cairnOk(["backup", "use", folder, "--password-file", place.passwordFile]);
    fs.renameSync(place.location, `${place.location}-away`);
    const away = onMachine("cairn service install --timer");
    assert.equal(away.status, 10, away.stderr);
    assert.ok(away.stderr.includes(`backups of ${folder} will fail`), away.stderr);
    fs.renameSync(`${place.location}-away`, place.location);
    assert.equal(onMachine("cairn service install --timer").status, 0);
    assert.equal(onMachine("cairn service uninstall").status, 0);
    // Later runs would name the missing folder, whose backup is due.
    cairnOk(["backup", "use", folder, "--none"]);
    fs.rmSync(folder, { recursive: true });
  },
);

test(
  "without systemd, service install prints a crontab line that starts the daemon at boot, and exits 10",
  {
    skip: whyNoMachine(),
  },
  () => {
    const done = onMachine("cairn service install --json", { hasSystemd: false });
    const { data } = JSON.parse(done.stdout) as { data: { text: string; unit: null } };
    assert.deepEqual([done.status, data.unit, fs.readdirSync(UNITS)], [10, null, []]);
    assert.match(data.text, /^@reboot {2}.* daemon$/);
  },
);

test("systemd lists the installed timer and runs its service", { skip: whyNoMachine() }, (t) => {
  const folder = newFolder("systemd");
  fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
  cairnOk(["init", folder]);
  const done = onMachine(`${REAL_SYSTEMD}cairn service install --timer >&2 || exit 97
systemctl list-timers --no-pager --no-legend
cairn service status --json > '${SCRATCH}/well'
systemctl stop cairn-due.timer
cairn service status --json > '${SCRATCH}/stopped'
systemctl start cairn-due.timer
systemctl start cairn-due.service || exit 96
cairn service uninstall >&2
systemctl list-timers --no-pager --no-legend --all`);
  if (done.status === 98) return t.skip("systemd does not start here");
  assert.equal(done.status, 0, done.stderr);
  const asked = (name: string): string[] =>
    (JSON.parse(fs.readFileSync(path.join(SCRATCH, name), "utf8")) as { data: { runner: { problems: string[] } } }).data
      .runner.problems;
  assert.deepEqual(asked("well"), []);
  assert.match(asked("stopped").join(), /cairn-due\.timer is inactive: `systemctl start cairn-due\.timer`/);
  assert.equal(done.stdout.match(/cairn-due\.timer/g)?.length, 1, done.stdout);
  assert.equal((cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[]).length, 1);
});
