import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { onMachine, REAL_CRON, REAL_SYSTEMD, type Ran, whyNoMachine } from "../fixtures/machine.ts";
import { newRepository, type TestRepository } from "../fixtures/repository.ts";
import { ageRuns } from "../fixtures/schedule.ts";
import { newFolder } from "../fixtures/work.ts";

/**
 * Five ways in which scheduled work fails, by the timer and by the daemon: what runs, whom the alarm tells, and what the
 * status says. The timer's runs are made as its service makes them; `test/flows/timer.flow.test.ts` has the timer in systemd itself.
 */

interface Place {
  folder: string;
  repository: TestRepository;
  /** Lines that the alarm got, as `job state`. */
  told(): string[];
  /** Lets the schedule run once, `hours` after its last run. */
  run(hours: number): Promise<void>;
  /** Sentences of `service status` or, without a daemon, of `schedule`. */
  problems(): string[];
  snapshots(): number;
  snapshotsOf(folder: string): number;
  /** Sets up another folder in the same way. */
  register(folder: string): Promise<void>;
  env: Record<string, string>;
}

const WAYS = ["timer", "daemon"] as const;
/** Starts a program without root's right to read every file. */
const DROPPED =
  process.geteuid?.() === 0 && spawnSync("setpriv", ["--version"]).error === undefined
    ? ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search", "--"]
    : [];

/** A folder with a kept repository and an alarm, for a user of its own. */
async function place(t: TestContext, way: (typeof WAYS)[number], name: string): Promise<Place> {
  const own = path.join(SCRATCH, `${name}-${way}`);
  const repository = await newRepository(`${name}-${way}-repository`);
  const folder = newFolder(`${name}-${way}`);
  const told = `${own}-told`;
  const daemon = way === "daemon" ? new TestDaemon(t) : null;
  const env: Record<string, string> = daemon === null ? { XDG_STATE_HOME: own } : daemon.asked.env!;
  const more = { env };
  const setUp = async (each: string): Promise<void> => {
    fs.writeFileSync(path.join(each, "letter"), "dear Ben");
    const { location, passwordFile } = repository;
    const onFailure = `cat >> ${told}`;
    if (daemon === null)
      return void cairnOk(["backup", "use", each, ...repository.options, "--on-failure", onFailure], more);
    await daemon.call("register", { path: each });
    await daemon.call("setBackupRepository", {
      workspace: each,
      kept: { repository: location, passwordFile, onFailure },
    });
  };
  if (daemon !== null) {
    daemon.configure("");
    await daemon.start();
  }
  await setUp(folder);
  const snapshotsOf = (each: string): number =>
    (cairnOk(["-C", SCRATCH, "backup", "list", "--path", each, ...repository.options], more).data["snapshots"] as [])
      .length;
  const schedule = (): { problems: string[] } => cairnOk(["schedule", folder], more).data as { problems: string[] };
  return {
    folder,
    repository,
    env,
    told: () =>
      fs.existsSync(told)
        ? fs
            .readFileSync(told, "utf8")
            .split("\n")
            .filter((line) => line !== "")
            .map((line) => JSON.parse(line) as { what: string; state: string })
            .map(({ what, state }) => `${what} ${state}`)
        : [],
    async run(hours) {
      ageRuns(hours, daemon?.recordsEnv ?? env);
      if (daemon === null) return void cairn(["due"], { ...more, prefix: DROPPED });
      await daemon.call("reload");
      await daemon.call("due", { workspace: folder });
    },
    problems: () => schedule().problems,
    register: setUp,
    snapshotsOf,
    snapshots: () => snapshotsOf(folder),
  };
}

for (const way of WAYS) {
  test(`${way}: a repository that is away at the first run is used after ten minutes, and the alarm tells both once`, async (t) => {
    const { repository, run, told, problems, snapshots } = await place(t, way, "away");
    fs.renameSync(repository.location, `${repository.location}-away`);
    await run(0);
    await eventually("the alarm", () => told().length > 0);
    assert.deepEqual(told(), ["backup failed"]);
    assert.match(problems()[0]!, /^backup into .* fails since .*: .*no repository/);
    await run(0);
    assert.deepEqual(told(), ["backup failed"]);
    fs.renameSync(`${repository.location}-away`, repository.location);
    await run(0.2);
    await eventually("the end of the alarm", () => told().length > 1);
    assert.deepEqual([told(), problems(), snapshots()], [["backup failed", "backup well"], [], 1]);
  });

  test(`${way}: a missing password file fails the backup, and the folder is saved`, async (t) => {
    const { repository, folder, run, told, problems, env } = await place(t, way, "no-password");
    fs.renameSync(repository.passwordFile, `${repository.passwordFile}-away`);
    await run(0);
    await eventually("the alarm", () => told().length > 0);
    assert.deepEqual(told(), ["backup failed"]);
    assert.match(problems()[0]!, /fails since .*password file/);
    assert.equal((cairnOk(["-C", folder, "history"], { env }).data["save_points"] as unknown[]).length, 1);
    fs.renameSync(`${repository.passwordFile}-away`, repository.passwordFile);
    await run(0.2);
    await eventually("the end of the alarm", () => told().length > 1);
    assert.deepEqual([told(), problems()], [["backup failed", "backup well"], []]);
  });

  test(`${way}: a folder whose disk is not mounted fails once, and is saved when the disk is back`, async (t) => {
    if (process.geteuid?.() !== 0) return t.skip("needs root");
    const { folder, run, told, problems, snapshots } = await place(t, way, "unmounted");
    const disk = `${folder}-disk`;
    fs.renameSync(folder, disk);
    await run(0);
    await eventually("the alarm", () => told().length > 0);
    assert.equal(told().length, 1, told().join());
    assert.ok(problems().length > 0);
    fs.renameSync(disk, folder);
    await run(0.2);
    await eventually("the end of the alarm", () => told().length > 1);
    assert.deepEqual([problems(), snapshots()], [[], 1]);
  });

  test(`${way}: one of three folders that cannot be read holds up neither of the others`, async (t) => {
    const here = await place(t, way, "one-of-three");
    const { folder, run, told, problems, snapshots, register } = here;
    const others = [newFolder(`second-${way}`), newFolder(`third-${way}`)];
    for (const each of others) await register(each);
    fs.rmSync(folder, { recursive: true });
    fs.writeFileSync(folder, "no folder any more");
    await run(0);
    await eventually("the alarm", () => told().length > 0);
    assert.equal(told().length, 1, told().join());
    assert.ok(problems().length > 0);
    for (const each of others) await eventually(each, () => here.snapshotsOf(each) === 1);
    fs.rmSync(folder);
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, "letter"), "dear Ann");
    await run(0.2);
    await eventually("the end of the alarm", () => told().length > 1);
    assert.deepEqual([problems(), snapshots()], [[], 1]);
  });
}

test(
  "timer: an unreadable entry rings once, and a new one rings again",
  { skip: DROPPED.length > 0 ? false : "needs root and setpriv" },
  async (t) => {
    const { folder, run, told } = await place(t, "timer", "entries");
    const close = (name: string): void => fs.writeFileSync(path.join(folder, name), name, { mode: 0 });
    close("first");
    for (const hours of [0, 25, 25]) await run(hours);
    assert.deepEqual(told(), ["backup partly"]);
    close("second");
    for (const hours of [25, 25]) await run(hours);
    assert.deepEqual(told(), ["backup partly", "backup partly"]);
    for (const name of ["first", "second"]) fs.chmodSync(path.join(folder, name), 0o600);
    for (const hours of [25, 25]) await run(hours);
    assert.deepEqual(told().slice(2), ["backup well"]);
  },
);

test("timer: a stopped timer is late after an hour, and service status exits with an error", async (t) => {
  const { run, problems, env } = await place(t, "timer", "stopped");
  await run(0);
  assert.deepEqual(problems(), []);
  ageRuns(26, env);
  assert.match(problems().join("\n"), /backup into .* was due at .* and has not run/);
  const status = cairn(["service", "status"], { env });
  assert.notEqual(status.status, 0);
});

interface Said {
  ok: boolean;
  data: { runner: { problems: string[] | null }; folders: unknown[]; problems: string[] };
  warnings: string[];
}

/** Runs a script on a machine of its own, which writes `cairn service status --json >> $STATUS` between its steps. */
function statusesOn(
  t: TestContext,
  script: string,
  options?: { hasSystemd: boolean },
): { done: Ran; said: Said[] } | null {
  const file = path.join(SCRATCH, "statuses");
  fs.rmSync(file, { force: true });
  const done = onMachine(`status() { cairn service status --json >> '${file}'; echo "$?"; }\n${script}`, options);
  if (done.status === 98) {
    t.skip("the program is not installed, or does not start here");
    return null;
  }
  assert.equal(done.status, 0, done.stderr);
  const lines = fs.readFileSync(file, "utf8").trim().split("\n");
  return { done, said: lines.map((line) => JSON.parse(line) as Said) };
}

test(
  "daemon: service status names a stopped, disabled or failing service, still lists the folders, and is well after a start",
  { skip: whyNoMachine() },
  (t) => {
    const folder = newFolder("daemon-stopped");
    fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
    const wrong = path.join(SCRATCH, "wrong.toml");
    fs.writeFileSync(wrong, "nonsense");
    const ran = statusesOn(
      t,
      `export CAIRN_SOCKET=/run/cairn/cairn.sock
${REAL_SYSTEMD}cairn service install >&2 && cairn save '${folder}' >&2 || exit 97
status
systemctl stop cairn.service
status
systemctl disable cairn.service
status
systemctl set-environment CAIRN_CONFIG='${wrong}'
systemctl start cairn.service && exit 96
status
systemctl unset-environment CAIRN_CONFIG
systemctl enable --now cairn.service || exit 95
status
cairn service uninstall >&2`,
    );
    if (ran === null) return;
    assert.equal(ran.done.stdout, "0\n4\n4\n4\n0\n");
    const starts = "cairn.service is inactive: `systemctl start cairn.service` changes that";
    const enables = "cairn.service is disabled: `systemctl enable cairn.service` changes that";
    const fails = "cairn.service is failed: `systemctl status cairn.service` shows why";
    assert.deepEqual(
      ran.said.map(({ data }) => data.problems),
      [[], [starts], [enables, starts], [enables, fails], []],
    );
    for (const { data } of ran.said) assert.equal(data.folders.length, 1);
  },
);

test(
  "cron: service status names a cron that does not run, and cron runs the printed line",
  { skip: whyNoMachine() },
  (t) => {
    const folder = newFolder("cron-stopped");
    fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
    const env = { XDG_STATE_HOME: path.join(SCRATCH, "cron state 100%") };
    cairnOk(["init", folder], { env });
    // Cron runs the line of `@reboot` when it starts: nobody waits for a minute.
    const ran = statusesOn(
      t,
      `export XDG_STATE_HOME='${env.XDG_STATE_HOME}'
${REAL_CRON}cairn service install --timer | grep '^[*]' > '${SCRATCH}/crontab'
sed 's|^[*]/10 [* ]*\\(.*\\)|&\\n@reboot \\1 \\&\\& touch /run/ran|' '${SCRATCH}/crontab' | crontab - || exit 97
status
cron -f >&2 & cron=$!
timeout 60 sh -c 'until [ -s /run/crond.pid ]; do sleep 0.1; done' || exit 96
status
timeout 60 sh -c 'until [ -e /run/ran ]; do sleep 0.1; done' || exit 95
kill $cron; wait $cron
status
mount --bind /bin/true /usr/sbin/cron
status`,
      { hasSystemd: false },
    );
    if (ran === null) return;
    assert.equal(ran.done.stdout, "4\n0\n4\n10\n");
    const stopped = "cron is not running: `service cron start` changes that";
    assert.deepEqual(
      ran.said.map(({ data }) => data.problems),
      [[stopped], [], [stopped], []],
    );
    const { data, warnings } = ran.said.at(-1)!;
    assert.equal(data.runner.problems, null);
    assert.match(warnings.join(), /cannot tell whether cron runs/);
    const points = cairnOk(["-C", folder, "history"], { env }).data["save_points"] as { cause: unknown }[];
    assert.deepEqual(
      points.map(({ cause }) => cause),
      [{ kind: "schedule" }],
    );
  },
);
