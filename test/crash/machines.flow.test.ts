import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { Machine } from "../../src/capture/vm/machine.ts";
import { DEVICES, MEMORY, SIDECAR } from "../../src/formats/machine/machine.ts";
import { buildCommand, cairn, cairnOk, SCRATCH, startCairn } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { boot, endMachines, findGuest, Guest, MACHINES, vm } from "../fixtures/guest.ts";
import { chosenPasses, killAt, passesOf } from "./rounds.ts";

/** Commands on machines that are killed at their failpoints: no guest stays paused, and a machine is whole or is not there. */

const files = findGuest();
const GOLDEN = path.join(SCRATCH, "golden");
let a: Guest;

/** Nothing of what was begun is left beside a machine. */
async function settled(name: string): Promise<void> {
  await eventually("nobody works on it", () => vm("inspect", name)["operation"] === null);
  const { state, mapped } = new Machine(MACHINES, name).read();
  const staged = [SIDECAR, DEVICES, ...(mapped === null ? [] : [MEMORY])];
  if (state !== "hibernated")
    assert.deepEqual(
      fs.readdirSync(path.join(MACHINES, name, "live")).filter((each) => staged.includes(each)),
      [],
    );
  const names = fs
    .readdirSync(path.join(MACHINES, name))
    .filter((each) => each.startsWith("live.") || each.startsWith("."));
  assert.deepEqual(
    names.filter((each) => each !== ".cairn"),
    [],
  );
}

/** Failpoints at which a guest does not run, or two of them do. */
const PAUSED = {
  save: ["vm-save.moving", "vm-save.paused"],
  restore: ["vm-restore.paused", "vm-restore.half", "vm-restore.exchanged", "vm-restore.loaded", "vm-go-on.waits"],
};

function kill(args: readonly string[], at: string | number): void {
  if (typeof at === "number") killAt(args, at);
  else assert.ok(cairn(args, { failpoint: at }).killed, at);
}

suite("killed commands on machines", { skip: "reason" in files ? files.reason : false }, () => {
  before(async () => {
    if ("reason" in files) return;
    a = await boot("a", files);
    vm("save", "a");
    vm("export", "a", "--to", GOLDEN);
  });
  after(() => endMachines());

  const line = (...words: string[]): string[] => ["vm", ...words];

  test("vm save, if killed, lets the guest run on, and leaves every saved state whole", async () => {
    vm("clone", "a", "mapped");
    for (const name of ["a", "mapped"]) {
      const guest = new Guest(name);
      for (const at of [...PAUSED.save, ...chosenPasses(passesOf(line("save", name)), 4)]) {
        kill(line("save", name), at);
        // Nobody calls the machine before it counts again.
        await guest.counted(2);
        await settled(name);
        const { data } = cairn(["verify", "--all", "-C", path.join(MACHINES, name, "saved")]);
        assert.equal(data["integrity_state"] ?? "verified", "verified", `${at}`);
      }
      vm("save", name);
      vm("clone", name, "proof");
      await new Guest("proof").counted();
      vm("rm", "proof", "--force");
    }
    vm("rm", "mapped", "--force", "--delete-points");
  });

  test("vm hibernate and vm start, if killed, leave a guest that runs or is hibernated, and loses nothing", async () => {
    const hibernating = line("hibernate", "sleeper");
    const starting = line("start", "sleeper");
    vm("clone", "a", "sleeper");
    const guest = new Guest("sleeper");
    const { token } = (await guest.counted(2)).at(-1)!;
    let before = 0;
    // The memory of a clone is mapped, and its own after the first start.
    for (const at of [
      "vm-save.paused",
      "vm-hibernate.staged",
      "vm-hibernate.committed",
      ...chosenPasses(passesOf(hibernating), 4),
    ]) {
      if (guest.pid() === null) {
        kill(starting, before++ % 2 === 0 ? "vm-start.loaded" : "vm-start.committed");
        await settled("sleeper");
        if (guest.pid() === null) vm("start", "sleeper");
      }
      const count = (await guest.counted(2)).at(-1)!.count;
      kill(hibernating, at);
      await settled("sleeper");
      if (guest.pid() === null) {
        assert.equal(vm("inspect", "sleeper")["state"], "hibernated", `${at}`);
        vm("start", "sleeper");
      }
      const [first] = (await guest.counted(2)).slice(-2);
      assert.ok(first!.count >= count, `${at}: ${first!.count} after ${count}`);
      assert.equal(first!.token, token);
    }
    vm("rm", "sleeper", "--force", "--delete-points");
  });

  test("a machine runs after vm restore was killed at any step", async () => {
    const restoring = line("restore", "a", "--from", GOLDEN);
    for (const at of [...PAUSED.restore, ...chosenPasses(passesOf(restoring), 4)]) {
      kill(restoring, at);
      await eventually("the machine runs", () => a.pid() !== null);
      await a.counted(2);
      await settled("a");
      assert.equal(vm("inspect", "a")["state"], "running");
    }
  });

  test("vm clone, vm create and vm rm, if killed, leave a machine that can be used or removed, or none", async () => {
    const cloning = (name: string): string[] => line("clone", "--from", GOLDEN, name);
    for (const at of ["vm-go-on.waits", ...chosenPasses(passesOf(cloning("traced")), 4)]) {
      kill(cloning("killed"), at);
      let found = cairn(line("inspect", "killed"));
      // The process beside may still settle it.
      await eventually("nobody works on it", () => {
        found = cairn(line("inspect", "killed"));
        return found.status !== 0 || found.data["operation"] === null;
      });
      if (found.status === 0) {
        assert.equal(found.data["state"], "running");
        await new Guest("killed").counted();
        vm("rm", "killed", "--force");
      } else vm("clone", "--from", GOLDEN, "killed");
      cairn(line("rm", "killed", "--force"));
      assert.ok(!fs.existsSync(path.join(MACHINES, "killed")));
    }
    kill(line("clone", "a", "of-point"), "vm-state.checked");
    assert.notEqual(cairn(line("inspect", "of-point")).status, 0);
    vm("clone", "a", "of-point");
    await new Guest("of-point").counted();
    vm("rm", "of-point", "--force");
    const shared = fs.readdirSync(path.join(MACHINES, ".shared"));
    assert.deepEqual(
      shared.filter((name) => name.startsWith(".")),
      [],
      "files of a save point",
    );
    const { kernel, initrd } = files as { kernel: string; initrd: string };
    const creating = (name: string): string[] =>
      line("create", name, "--kernel", kernel, "--initrd", initrd, "--disk", "1M");
    for (const pass of chosenPasses(passesOf(creating("traced-2")), 4)) {
      killAt(creating("made"), pass);
      if (cairn(line("inspect", "made")).status !== 0) vm(...creating("made").slice(1, -2));
      const removing = line("rm", "made");
      for (let each = 1; killAt(removing, each) !== null; each++)
        if (cairn(line("inspect", "made")).status !== 0) vm(...creating("made").slice(1, -2));
    }
    const { machines } = vm("list") as { machines: { name: string }[] };
    assert.deepEqual(
      machines.map(({ name }) => name),
      ["a", "traced", "traced-2"],
    );
    const blobs = fs.readdirSync(path.join(MACHINES, ".shared/blobs"));
    assert.ok(blobs.length <= 3 && blobs.every((name) => !name.startsWith(".")), blobs.join());
  });

  test("doctor names the files of a killed save, clone, import and restore of a backup, and --repair removes them", async () => {
    const env = { CAIRN_PASSWORD: "secret" };
    const repository = ["-r", path.join(SCRATCH, "repository")];
    const tar = path.join(SCRATCH, "stream.tar");
    cairnOk(["backup", "init", ...repository], { env });
    cairnOk(["backup", "create", ...repository, "-C", path.join(MACHINES, "a/saved")], { env });
    execFileSync("sh", ["-c", `'${process.execPath}' '${buildCommand()}' vm export a --to - >'${tar}'`]);
    interface Found {
      kind: string;
      detail: string;
      repaired?: boolean;
    }
    const doctor = (...options: string[]): Found[] => {
      const { data } = cairnOk(["doctor", "-C", path.join(MACHINES, "a/saved"), ...options]);
      return (data["findings"] as Found[]).filter(({ detail }) => detail.includes("virtual machines"));
    };
    const listed = (): string[] =>
      [MACHINES, path.join(MACHINES, "a"), path.join(MACHINES, ".shared"), path.join(MACHINES, ".shared/blobs")]
        .flatMap((folder) => fs.readdirSync(folder).map((name) => path.join(folder, name)))
        .filter((file) => !file.endsWith("lock") && !file.endsWith("verified.json"))
        .toSorted();
    for (const name of ["x", "y"]) cairn(line("rm", name, "--force"));
    assert.deepEqual(
      doctor("--repair").filter(({ repaired }) => repaired !== true),
      [],
    );
    const before = listed();
    const wait = path.join(SCRATCH, "wait");
    for (const [at, words] of [
      ["vm-save.taken", line("save", "a")],
      ["vm-state.checked", line("clone", "a", "x")],
      ["vm-clone.brought", line("clone", "--from", GOLDEN, "x")],
      ["vm-state.checked", line("import", tar, "--name", "x")],
      ["vm-create.begun", ["backup", "restore", "latest", ...repository, "--as-machine", "x"]],
    ] as const) {
      const what = `${words.slice(0, 2).join(" ")} at ${at}`;
      fs.writeFileSync(wait, "");
      const run = startCairn(words, { env, failpoint: `${at}@${wait}` });
      await run.paused;
      assert.deepEqual([doctor(), doctor("--repair")], [[], []], `${what}: it runs`);
      run.child.kill("SIGKILL");
      await run.ended;
      const found = doctor();
      assert.ok(found.length > 0, what);
      for (const { kind, detail } of found) {
        assert.equal(kind, "leftovers");
        assert.match(detail, /machines, [\d.]+ (?:[KM]i)?B: \//, what);
      }
      assert.notDeepEqual(listed(), before, what);
      assert.ok(
        doctor("--repair").every(({ repaired }) => repaired === true),
        what,
      );
      assert.deepEqual(doctor(), [], what);
      assert.deepEqual(listed(), before, what);
    }
    await a.counted();
    vm("save", "a");
  });
});
