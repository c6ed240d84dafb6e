import assert from "node:assert/strict";
import { test } from "node:test";
import type { Hardware, SavedMachine } from "../../formats/machine/machine.ts";
import { devicesOf } from "./qemu.ts";
import { checkFits } from "./state.ts";

const HARDWARE: Hardware = {
  machine: "pc-q35-7.2",
  accelerator: "tcg",
  cpu: "Nehalem",
  cpus: 1,
  memory: 128 << 20,
  kernel: null,
  initrd: null,
  append: "",
  disks: [{ size: 1 << 20, base: null }],
  cdrom: null,
  nics: [],
  seed: true,
  port: true,
};
const HOST = { program: "qemu", version: "7.2.22", accelerator: "tcg" } as const;
const stateOf = (hardware: Hardware, devices = devicesOf(hardware)): SavedMachine => ({
  id: "a".repeat(32),
  name: "web",
  description: "",
  image: "",
  hypervisorVersion: "7.2.1",
  hasMemory: true,
  foreignNics: false,
  hardware,
  devices,
});

test("checkFits accepts a state of an earlier build, without seed disk and serial port, and refuses other devices", () => {
  const earlier: Hardware = { ...HARDWARE, seed: false, port: false };
  // The list that builds without these devices recorded.
  const devices = [
    "machine pc-q35-7.2",
    "cpu Nehalem 1",
    `memory ${128 << 20}`,
    "vmgenid",
    "virtio-rng-pci addr=0x2",
    `virtio-blk-pci addr=0x3 size=${1 << 20}`,
  ];
  checkFits(HOST, stateOf(earlier, devices));
  checkFits(HOST, stateOf(HARDWARE));
  for (const [hardware, recorded] of [
    [HARDWARE, devices],
    [earlier, devicesOf(HARDWARE)],
    [HARDWARE, devicesOf(HARDWARE).map((each) => each.replace("0xe", "0xd"))],
  ] as const)
    assert.throws(() => checkFits(HOST, stateOf(hardware, [...recorded])), { code: "refused" });
});

test("seed disk and serial port have the same addresses with any number of disks and network devices", () => {
  const disk = { size: 1 << 20, base: null };
  const nic = { network: "user", tap: null, mac: "52:54:00:00:00:01", internet: false, forwards: [] } as const;
  for (const n of [0, 1, 8]) {
    const all = devicesOf({ ...HARDWARE, disks: Array(n).fill(disk), nics: Array(n).fill(nic) });
    assert.ok(all.includes(`virtio-blk-pci addr=0xe size=${1 << 20}`));
    assert.ok(all.includes("virtio-serial-pci addr=0xf port=org.cairn.identity"));
    const addresses = all.flatMap((each) => /addr=(0x\w+)/.exec(each)?.[1] ?? []);
    assert.equal(new Set(addresses).size, addresses.length);
  }
});
