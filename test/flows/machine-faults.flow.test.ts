import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, suite, test } from "node:test";
import { buildCommand, cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { boot, bootedBy, endMachines, findGuest, Guest, MACHINES, processesOf, vm, vmIn } from "../fixtures/guest.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { firstOf, variant } from "../fixtures/long.ts";
import { fillDisk, untilFree } from "../fixtures/room.ts";

/** Machines whose guest, host or disk is not as one would wish. */

const ordinary = findGuest();
const cloud = findGuest("cloud");
const skipOrdinary = "reason" in ordinary ? ordinary.reason : false;
const skipCloud = "reason" in cloud ? cloud.reason : false;

/** Bytes that a file system has in use. */
function usedIn(root: string): number {
  execFileSync("sync", ["-f", root]);
  const { blocks, bfree, bsize } = fs.statfsSync(root);
  return (blocks - bfree) * bsize;
}

suite("machines on other kernels and hosts", () => {
  after(() => endMachines());

  for (const [kind, files, skip] of [
    // Clones of such a guest answer without this warning in each run of machines.flow.test.ts.
    ["ordinary", ordinary, skipOrdinary || (variant.skip ?? false)],
    ["cloud", cloud, skipCloud],
  ] as const)
    test(
      `vm clone and vm restore warn if the guest's kernel has no VM generation driver: ${kind}`,
      { skip },
      async () => {
        if ("reason" in files) return;
        const name = `host-${kind}`;
        vm("run", name, ...bootedBy(files), "--disk", "1M", "--memory", "192M");
        await new Guest(name).counted(2);
        const run = (...args: string[]): string =>
          cairnOk(["vm", ...args])
            .warnings.filter((each) => each.includes("VM generation driver"))
            .join();
        run("save", name);
        const golden = path.join(SCRATCH, `golden-${kind}`);
        run("export", name, "--to", golden);
        const said = [
          run("clone", name, `${name}-a`),
          run("clone", "--from", golden, `${name}-b`),
          // Its answer about the memory is kept.
          run("clone", "--from", golden, `${name}-c`),
          run("restore", name, "latest"),
        ];
        for (const each of said) {
          if (kind === "ordinary") assert.equal(each, "");
          else assert.match(each, /VM generation driver/);
        }
        endMachines();
      },
    );

  for (const kind of firstOf(["btrfs", "xfs", "ext4"] as const, 1))
    test(
      `on a full disk machines are stopped, started and removed, and vm inspect says why one ended: ${kind}`,
      { skip: skipOrdinary },
      async (t) => {
        if ("reason" in ordinary) return;
        const place = loopFileSystem(t, kind, { size: 768 << 20 });
        if (place === null) return;
        const machines = path.join(place.root, "machines");
        const vm = vmIn(machines);
        t.after(() => endMachines(place.root));
        const run = async (name: string): Promise<Guest> => {
          vm("run", name, ...bootedBy(ordinary), "--memory", "192M", "--disk", "1M");
          const guest = new Guest(name, machines);
          await guest.counted(2);
          return guest;
        };
        const [ends, hangs] = [await run("ends"), await run("hangs")];
        process.kill(hangs.pid()!, "SIGSTOP");
        const env = { CAIRN_MACHINES: machines };
        // The kernel lets a few commands wait for the QEMU, and refuses later ones.
        for (const line of ["inspect", "inspect", "start", "stop"]) {
          const { error, data } = cairn(["vm", line, "hangs"], { env });
          assert.match(String(error?.hint ?? data["error"]), /vm stop --force/, line);
        }
        fillDisk(path.join(place.root, "filler"));
        // Fresh memory of the guest has no room on the disk.
        await ends.type("dd if=/dev/zero of=/dev/filler bs=1M count=180 2>/dev/null").catch(() => undefined);
        await eventually("QEMU ends for want of room", () => ends.pid() === null);
        const why = (): string => String(vm("inspect", "ends")["error"]);
        await eventually("the end is recorded", () => why().includes("no more space"));
        const said = why();
        fs.rmSync(path.join(place.root, "filler"));
        await untilFree(place.root, 64 << 20);
        assert.equal(why(), said, "the reason stays when there is room again");
        fillDisk(path.join(place.root, "filler"));
        assert.equal(vm("stop", "hangs", "--force")["state"], "stopped");
        assert.equal(vm("inspect", "hangs")["error"], null, "it was told to end");
        assert.equal(vm("stop", "ends")["state"], "stopped");
        assert.equal(vm("stop", "ends")["error"], said, "it was not running");
        const { status, error } = cairn(["vm", "start", "hangs"], { env });
        assert.ok(status === 0 || error?.code === "no_space", error?.message);
        if (cairn(["vm", "start", "ends"], { env }).status !== 0)
          assert.equal(why(), said, "a failed start keeps the reason");
        for (const name of ["ends", "hangs"]) {
          vm("rm", name, "--force");
          assert.equal(cairn(["vm", "inspect", name], { env }).error?.code, "not_found");
        }
        assert.deepEqual(fs.readdirSync(machines), [".shared"]);
      },
    );

  test(
    "vm inspect says that somebody killed a guest's QEMU, also with little free space",
    { skip: skipOrdinary },
    async (t) => {
      if ("reason" in ordinary) return;
      const place = loopFileSystem(t, "ext4", { size: 512 << 20 });
      if (place === null) return;
      const machines = path.join(place.root, "machines");
      t.after(() => endMachines(place.root));
      const vm = vmIn(machines);
      vm("run", "killed", ...bootedBy(ordinary), "--memory", "192M", "--disk", "1M");
      const guest = new Guest("killed", machines);
      await guest.counted(2);
      fillDisk(path.join(place.root, "filler"));
      fs.truncateSync(path.join(place.root, "filler"), fs.statSync(path.join(place.root, "filler")).size - (4 << 20));
      process.kill(guest.pid()!, "SIGKILL");
      const why = (): string => String(vm("inspect", "killed")["error"]);
      await eventually("the end is recorded", () => why() === "its QEMU was ended by SIGKILL");
    },
  );

  test(
    "a guest whose shell is killed, or whose record is cut, is stopped, and starts again",
    { skip: skipOrdinary },
    async (t) => {
      if ("reason" in ordinary) return;
      t.after(() => endMachines());
      const guest = await boot("unrecorded", ordinary, ["--memory", "192M"]);
      const live = path.join(MACHINES, "unrecorded/live");
      const killed = async (...pids: number[]): Promise<void> => {
        for (const pid of pids) process.kill(pid, "SIGKILL");
        await eventually("QEMU ends", () => guest.pid() === null);
      };
      const shellOf = (pid: number): number =>
        Number(/^PPid:\s*(\d+)$/m.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))![1]);
      const requireStopped = async (what: string): Promise<void> => {
        const { state, error } = vm("inspect", "unrecorded");
        const why = "its QEMU was killed with its shell, or the host went down, while the guest ran";
        assert.deepEqual([state, error], ["stopped", why], what);
        vm("start", "unrecorded");
        await guest.counted(2);
      };
      await killed(shellOf(guest.pid()!), guest.pid()!);
      assert.equal(fs.readFileSync(path.join(live, "ended"), "utf8"), "");
      await requireStopped("the shell was killed");
      await killed(-shellOf(guest.pid()!));
      await requireStopped("the group was killed");
      const pid = guest.pid()!;
      await killed(pid);
      const record = path.join(live, "ended");
      await eventually("the end is recorded", () => fs.readFileSync(record, "utf8").endsWith("\n"));
      fs.truncateSync(record, fs.statSync(record).size - 2);
      await requireStopped("the record is cut");
    },
  );

  test(
    "states on xfs are reflinks, a wrong envelope is refused, and a failed save does not count",
    { skip: skipOrdinary },
    async (t) => {
      const place = loopFileSystem(t, "xfs", { size: 768 << 20 });
      if (place === null) return;
      const machines = path.join(place.root, "machines");
      const vm = vmIn(machines);
      const env = { CAIRN_MACHINES: machines };
      const image = path.join(SCRATCH, "disk-of-noise");
      fs.writeFileSync(image, randomBytes(20 << 20));
      vm("create", "m", "--image", image);
      vm("save", "m");
      const kept = path.join(machines, "m/saved");
      assert.equal(cairnOk(["engine", "show", kept]).data["engine"], "reflink-copy");
      const golden = path.join(place.root, "golden");
      vm("export", "m", "--to", golden);
      const before = usedIn(place.root);
      vm("export", "m", "--to", path.join(place.root, "golden-2"));
      const taken = usedIn(place.root) - before;
      assert.ok(taken < 10 << 20, `an export on the same file system took ${taken} bytes`);
      const envelope = path.join(golden, "snapshot.json");
      const whole = JSON.parse(fs.readFileSync(envelope, "utf8")) as { config: Record<string, unknown> };
      for (const [field, value] of Object.entries({
        id: "0".repeat(32),
        name: "n",
        image: "/x",
        image_digest: "0".repeat(64),
        image_type: "raw",
        image_blob_ids: [],
        hypervisor: "xen",
        cpu: 9,
        memory: 1,
        storage: "0",
        nics: 7,
        network: "tap",
      })) {
        fs.writeFileSync(envelope, JSON.stringify({ ...whole, config: { ...whole.config, [field]: value } }));
        const { status, error } = cairn(["vm", "clone", "--from", golden, "c"], { env });
        assert.deepEqual([status, error?.code], [6, "damaged"]);
        assert.match(error?.message ?? "", new RegExp(`: ${field} is `));
      }
      const { cpu: _cpu, ...fewer } = whole.config;
      fs.writeFileSync(envelope, JSON.stringify({ ...whole, config: { ...fewer, more: 1 } }));
      vm("clone", "--from", golden, "c");
      vm("create", "n", "--image", image);
      fillDisk(path.join(place.root, "filler"));
      for (const [name, saves] of [
        ["m", 1],
        ["n", 0],
      ] as const) {
        assert.equal(cairn(["vm", "save", name], { env }).error?.code, "no_space");
        assert.equal((vm("inspect", name)["lineage"] as string[]).length, saves, name);
      }
      vm("rm", "n");
      assert.equal(cairn(["vm", "rm", "m"], { env }).error?.code, "refused");
      vm("rm", "m", "--delete-points");
    },
  );

  test("states on btrfs are reflinks: a save takes no more room for its disks", { skip: skipOrdinary }, (t) => {
    const place = loopFileSystem(t, "btrfs", { size: 768 << 20 });
    if (place === null) return;
    const machines = path.join(place.root, "machines");
    const vm = vmIn(machines);
    const image = path.join(SCRATCH, "disk-on-btrfs");
    fs.writeFileSync(image, randomBytes(20 << 20));
    vm("create", "m", "--image", image);
    const used = (): number => usedIn(place.root);
    const before = used();
    vm("save", "m");
    assert.ok(used() - before < 10 << 20, `${used() - before} bytes`);
    assert.equal(cairnOk(["engine", "show", path.join(machines, "m/saved")]).data["engine"], "reflink-copy");
    // The first use of the point writes its content to the store.
    vm("clone", "m", "c");
    const sealed = used();
    vm("export", "m", "--to", path.join(place.root, "golden"));
    assert.ok(used() - sealed < 10 << 20, `an export on the same file system took ${used() - sealed} bytes`);
    vm("rm", "m", "--delete-points");
  });

  test(
    "a killed export, save, clone or import leaves nothing: the next command or doctor removes it",
    { skip: skipOrdinary },
    () => {
      const machines = path.join(SCRATCH, "of-killed");
      const exports = path.join(SCRATCH, "of-killed-exports");
      const env = { CAIRN_MACHINES: machines };
      const vm = vmIn(machines);
      const image = path.join(SCRATCH, "disk-of-killed");
      fs.writeFileSync(image, randomBytes(1 << 20));
      fs.mkdirSync(exports);
      vm("create", "m", "--image", image);
      vm("save", "m");
      const saved = path.join(machines, "m/saved");
      const killed = (failpoint: string, ...line: string[]): void =>
        assert.ok(cairn(["vm", ...line], { env, failpoint }).killed, failpoint);
      const hidden = (folder: string): string[] =>
        fs.readdirSync(folder).filter((name) => name.startsWith(".cairn-tmp-"));
      const to = path.join(exports, "golden");
      const leftovers = (...more: string[]): { detail: string; repaired?: boolean }[] =>
        (cairnOk(["doctor", saved, ...more]).data["findings"] as { kind: string; detail: string }[]).filter(
          ({ kind }) => kind === "leftovers",
        );

      killed("export-directory.written", "export", "m", "--to", to);
      const [left] = hidden(exports);
      assert.ok(
        leftovers().some(({ detail }) => detail.includes(left!)),
        "doctor finds what lies beside a target",
      );
      leftovers("--repair");
      assert.deepEqual([fs.readdirSync(exports), leftovers()], [[], []]);
      killed("export-directory.described", "export", "m", "--to", to);
      vm("save", "m");
      assert.deepEqual(fs.readdirSync(exports), [], "a save of the machine removes it");
      killed("export-directory.written", "export", "m", "--to", to);
      vm("export", "m", "--to", to);
      assert.deepEqual(fs.readdirSync(exports), ["golden"]);

      killed("vm-save.taken", "save", "m");
      assert.equal(hidden(path.join(machines, "m")).length, 1);
      vm("save", "m");
      assert.deepEqual(hidden(path.join(machines, "m")), []);

      const tar = path.join(exports, "golden.tar");
      execFileSync("sh", ["-c", `'${process.execPath}' '${buildCommand()}' vm export m --to - >'${tar}'`], {
        env: { ...process.env, ...env },
      });
      for (const line of [
        ["clone", "m", "c"],
        ["import", tar, "--name", "c"],
      ]) {
        for (const failpoint of ["vm-state.checked", "vm-create.begun", "vm-clone.brought"]) {
          killed(failpoint, ...line);
          assert.equal(cairn(["vm", "inspect", "c"], { env }).error?.code, "not_found", failpoint);
        }
        vm(...line);
        vm("rm", "c");
        assert.deepEqual(fs.readdirSync(machines).toSorted(), [".shared", "m"], line[0]);
        assert.deepEqual(hidden(path.join(machines, ".shared")), [], line[0]);
        assert.deepEqual(hidden(path.join(machines, ".shared/blobs")), [], line[0]);
      }
    },
  );

  test("the QEMU process that probes for KVM ends if its command is killed", { skip: skipOrdinary }, async () => {
    const machines = path.join(SCRATCH, "probed");
    const line = ["vm", "create", "first", "--image", "/dev/null"];
    const env = { ...process.env, CAIRN_MACHINES: machines };
    const child = spawn(process.execPath, [buildCommand(), ...line], { stdio: "ignore", env });
    await eventually("the probe runs", () => child.exitCode !== null || processesOf("isa-debug-exit").length > 0);
    child.kill("SIGKILL");
    await eventually("the probe ends", () => processesOf("isa-debug-exit").length === 0);
  });

  test("vm create refuses a broken VMDK image instead of using it as a raw disk", { skip: skipOrdinary }, () => {
    const machines = path.join(SCRATCH, "of-vmdk");
    const image = path.join(SCRATCH, "disk.vmdk");
    const create = (): ReturnType<typeof cairn>["error"] =>
      cairn(["vm", "create", "vmdk", "--image", image], { env: { CAIRN_MACHINES: machines } }).error;
    const header = Buffer.alloc(1 << 16);
    header.write("KDMV");
    fs.writeFileSync(image, header);
    const empty = create();
    assert.equal(empty?.code, "refused", "it has no sectors of its own");
    assert.match(empty?.hint ?? "", /qemu-img convert/);
    header.writeBigUInt64LE(1n << 40n, 12);
    fs.writeFileSync(image, header);
    const cut = create();
    assert.equal(cut?.code, "io");
    assert.match(cut?.message ?? "", /qemu-img/);
    assert.deepEqual(fs.readdirSync(machines), [".shared"]);
    assert.deepEqual(fs.readdirSync(path.join(machines, ".shared/blobs")), []);
  });
});
