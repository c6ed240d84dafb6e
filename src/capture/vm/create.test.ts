import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { type Faults, fakeHost } from "../../../test/fixtures/fake-qemu.ts";
import { DEVICES, encodeSaved, type Hardware, MEMORY, SIDECAR } from "../../formats/machine/machine.ts";
import { startMachine } from "./create.ts";
import type { CairnError } from "../../errors.ts";
import { changeMachine, lookAt, newRecord, withMachine } from "./life.ts";
import { Machine, machinesFolder, type MachineRecord, processIn } from "./machine.ts";
import { devicesOf, endQemu } from "./qemu.ts";
import { takeState } from "./state.ts";

/** Starts of machines whose QEMU is a fake: no guest runs. */

const SIZE = 16 << 20;
const HARDWARE: Hardware = {
  machine: "pc-q35-7.2",
  accelerator: "tcg",
  cpu: "Nehalem",
  cpus: 1,
  memory: SIZE,
  kernel: null,
  initrd: null,
  append: "",
  disks: [],
  cdrom: null,
  nics: [
    {
      network: "user",
      tap: null,
      mac: "52:54:00:00:00:01",
      internet: false,
      forwards: [{ host: 2222, guest: 22, free: false }],
    },
  ],
  seed: false,
  port: true,
};

interface Made {
  machine: Machine;
  order(): string[];
  start(faults?: Faults): Promise<void>;
}

/** A hibernated machine. */
function hibernated(t: TestContext, hardware = HARDWARE, devices = devicesOf(hardware)): Made {
  const folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "cairn-wake-")));
  const { host, order, set } = fakeHost(folder);
  const machine = new Machine(machinesFolder(path.join(folder, "machines")), "web");
  t.after(async () => {
    await endQemu(machine.live);
    fs.rmSync(folder, { recursive: true });
  });
  fs.mkdirSync(machine.live, { recursive: true });
  const names = { name: "web", description: "", image: "" };
  const record: MachineRecord = { ...newRecord(names, hardware), state: "hibernated" };
  const { id, foreignNics } = record;
  const saved = { ...names, id, hypervisorVersion: host.version, hasMemory: true, foreignNics, hardware };
  fs.writeFileSync(path.join(machine.live, SIDECAR), encodeSaved({ ...saved, devices }));
  fs.writeFileSync(path.join(machine.live, DEVICES), "devices");
  fs.writeFileSync(path.join(machine.live, MEMORY), "memory");
  fs.truncateSync(path.join(machine.live, MEMORY), SIZE);
  machine.write(record);
  const start = async (faults: Faults = { taken: [99] }): Promise<void> => {
    set(faults);
    await withMachine(machine.root, "web", "start", {}, async (each, its) => startMachine(host, each, its));
  };
  return { machine, order, start };
}

const memoryOf = ({ live }: Machine): string => fs.readFileSync(path.join(live, MEMORY), "utf8").slice(0, 6);

test("vm set of a hibernated machine names the start, because a stop would stop nothing", async (t) => {
  const { machine } = hibernated(t);
  await assert.rejects(changeMachine(machine, machine.read(), { cpus: 2 }), (error: CairnError) => {
    assert.equal(error.code, "conflict");
    assert.match(error.hint!, /go on, and stop the machine then: cairn vm start /);
    return true;
  });
});

test("vm start of a hibernated machine keeps its memory if the port of a forward is in use", async (t) => {
  const { machine, order, start } = hibernated(t);
  await assert.rejects(start({ taken: [2222] }), { code: "conflict", message: /port 2222 of this host is in use/ });
  assert.deepEqual([machine.read().state, memoryOf(machine), processIn(machine.live)], ["hibernated", "memory", null]);
  await start();
  assert.deepEqual([machine.read().state, memoryOf(machine)], ["stopped", "memory"]);
  assert.notEqual(processIn(machine.live), null);
  // The forward is open before the record says that the guest runs.
  assert.deepEqual(
    order()
      .filter((each) => !each.startsWith("info"))
      .slice(-2),
    ["hostfwd_add net0 tcp:127.0.0.1:2222-:22", "cont stopped"],
  );
});

test("vm start of a hibernated machine keeps its memory if QEMU refuses to run the guest", async (t) => {
  const { machine, start } = hibernated(t);
  await assert.rejects(start({ refusesToRun: true }), { code: "io", message: /cannot run/ });
  assert.deepEqual([machine.read().state, memoryOf(machine), processIn(machine.live)], ["hibernated", "memory", null]);
  await start();
  assert.equal(machine.read().state, "stopped");
});

test("a free port is recorded at the same time as the start of a hibernated machine", async (t) => {
  const forwards = [0, 2222, 0].map((host) => ({ host, guest: 22, free: host === 0 }));
  const { machine, start } = hibernated(t, { ...HARDWARE, nics: [{ ...HARDWARE.nics[0]!, forwards }] });
  const ports = () => machine.read().hardware.nics[0]!.forwards.map(({ host }) => host);
  await assert.rejects(start({ taken: [2222] }), { code: "conflict" });
  assert.deepEqual([machine.read().state, ports()], ["hibernated", [0, 2222, 0]]);
  await start();
  assert.deepEqual(ports(), [40_000, 2222, 40_002]);
});

test("vm start of a hibernated machine takes another free port if the one chosen before is in use", async (t) => {
  const forwards = [
    { host: 41_000, guest: 22, free: true },
    { host: 2222, guest: 80, free: false },
  ];
  const { machine, start } = hibernated(t, { ...HARDWARE, nics: [{ ...HARDWARE.nics[0]!, forwards }] });
  await start({ taken: [41_000] });
  assert.deepEqual(machine.read().hardware.nics[0]!.forwards, [
    { host: 40_000, guest: 22, free: true },
    { host: 2222, guest: 80, free: false },
  ]);
});

test("the saved state of a hibernated machine has the devices with which it was hibernated", async (t) => {
  const { machine } = hibernated(t, { ...HARDWARE, nics: [] }, ["a device of another build"]);
  const into = path.join(machine.folder, "into");
  fs.mkdirSync(into);
  const host = { program: "qemu", version: "8.0.0", accelerator: "tcg" } as const;
  const { saved } = await takeState(host, machine, machine.read(), { qmp: null, into });
  assert.deepEqual(saved.devices, ["a device of another build"]);
  assert.deepEqual([saved.hasMemory, saved.hypervisorVersion], [true, "7.2.22"]);
});

test("vm start of a hibernated machine without its whole memory starts no QEMU, and says how to boot it", async (t) => {
  for (const name of [MEMORY, DEVICES, SIDECAR]) {
    const { machine, order, start } = hibernated(t);
    fs.rmSync(path.join(machine.live, name));
    await assert.rejects(start(), {
      code: "damaged",
      message: /its disks are not affected/,
      hint: /without the memory/,
    });
    assert.deepEqual([machine.read().state, order()], ["hibernated", []]);
  }
  const { machine, order, start } = hibernated(t);
  fs.truncateSync(path.join(machine.live, MEMORY), SIZE - 1);
  await assert.rejects(start(), { code: "damaged" });
  assert.deepEqual([machine.read().state, order()], ["hibernated", []]);
});

test("a QEMU that ends for want of room leaves the memory of a hibernated machine", async (t) => {
  const { machine, start } = hibernated(t);
  await assert.rejects(start({ endsWithoutRoom: true }));
  assert.deepEqual([machine.read().state, memoryOf(machine)], ["hibernated", "memory"]);
});

test("the next operation opens forwards that a killed command left closed, and says which cannot open", async (t) => {
  const { machine, order, start } = hibernated(t);
  await start();
  const record = machine.read();
  const nic = record.hardware.nics[0]!;
  const forwards = [...nic.forwards, { host: 0, guest: 80, free: true }];
  machine.write({ ...record, hardware: { ...record.hardware, nics: [{ ...nic, forwards }] } });
  const before = order().length;
  await lookAt(machine);
  const asked = order()
    .slice(before)
    .filter((each) => each.startsWith("hostfwd"));
  assert.deepEqual(asked, ["hostfwd_add net0 tcp:127.0.0.1:0-:80"]);
  assert.deepEqual(machine.read().hardware.nics[0]!.forwards[1], { host: 40_001, guest: 80, free: true });
  const taken = [...nic.forwards, { host: 99, guest: 81, free: false }];
  machine.write({ ...record, hardware: { ...record.hardware, nics: [{ ...nic, forwards: taken }] } });
  assert.match((await lookAt(machine)).record.error ?? "", /port 99 of this host is in use/);
});
