import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { decodeSaved, encodeSaved, filesOf, isMachineName, roleOf, type SavedMachine } from "./machine.ts";

const DIGEST = "a".repeat(64);
const SAVED: SavedMachine = {
  id: "b".repeat(32),
  name: "web",
  description: "of the shop",
  image: "/images/debian.qcow2",
  hypervisorVersion: "7.2.22",
  hasMemory: true,
  foreignNics: false,
  hardware: {
    machine: "pc-q35-7.2",
    accelerator: "tcg",
    cpu: "Nehalem",
    cpus: 2,
    memory: 256 << 20,
    kernel: null,
    initrd: null,
    append: "",
    disks: [
      { size: 10 * 2 ** 30, base: DIGEST },
      { size: 1 << 20, base: DIGEST },
    ],
    cdrom: "c".repeat(64),
    nics: [
      {
        network: "tap",
        tap: "tap0",
        mac: "52:54:00:00:00:01",
        internet: true,
        forwards: [{ host: 2222, guest: 22, free: false }],
      },
    ],
    seed: true,
    port: true,
  },
  devices: ["machine pc-q35-7.2"],
};

test("decodeSaved returns the encoded machine, and ignores unknown members", () => {
  const bytes = encodeSaved(SAVED);
  assert.deepEqual(decodeSaved(bytes), SAVED);
  const earlier = { ...SAVED, hardware: { ...SAVED.hardware, seed: undefined, port: undefined, cdrom: undefined } };
  const { seed, port, cdrom } = decodeSaved(encodeSaved(earlier as unknown as SavedMachine)).hardware;
  assert.deepEqual([seed, port, cdrom], [false, false, null], "a state of an earlier build");
  const more = { ...(JSON.parse(Buffer.from(bytes).toString()) as object), more: 1 };
  assert.deepEqual(decodeSaved(Buffer.from(JSON.stringify(more))), SAVED);
  assert.deepEqual(filesOf(SAVED), [
    "memory",
    "devices",
    "disk-0.qcow2",
    "disk-1.qcow2",
    `blobs/${DIGEST}`,
    `blobs/${SAVED.hardware.cdrom}`,
  ]);
  assert.deepEqual(filesOf({ ...SAVED, hasMemory: false }).slice(0, 1), ["disk-0.qcow2"]);
  assert.deepEqual(["memory", `blobs/${DIGEST}`, "disk-1.qcow2", "cairn-machine.json"].map(roleOf), [
    "memory",
    "base",
    "disk",
    "config",
  ]);
});

/** Values that stand for any of another type, a path, or a number out of bounds. */
const HOSTILE = [
  null,
  "",
  "../../etc/passwd",
  "/etc/passwd",
  -1,
  0.5,
  1e18,
  true,
  [],
  {},
  [null],
  "a".repeat(5000),
  "a,b=c",
];

test("decodeSaved never returns an unsafe name, path or number from a changed machine record", () => {
  const spoil = (at: unknown, path: string[]): void => {
    if (typeof at !== "object" || at === null) return;
    for (const key of Object.keys(at)) {
      const members = at as Record<string, unknown>;
      const before = members[key];
      for (const value of [...HOSTILE, undefined]) {
        members[key] = value;
        try {
          const { hardware, name } = decodeSaved(Buffer.from(JSON.stringify(value0)));
          assert.ok(isMachineName(name));
          for (const { base } of hardware.disks) assert.ok(base === null || /^[0-9a-f]{64}$/.test(base));
          for (const { tap } of hardware.nics) assert.ok(tap === null || /^[\w.-]+$/.test(tap));
          for (const text of [hardware.cpu, hardware.machine]) assert.match(text, /^[\w.-]+$/);
          assert.ok(hardware.memory % (1 << 20) === 0 && hardware.cpus >= 1);
        } catch (error) {
          assert.ok(error instanceof CairnError, `${[...path, key].join(".")}: ${String(error)}`);
          assert.ok(["damaged", "newer_version"].includes(error.code), error.message);
        }
      }
      members[key] = before;
      spoil(before, [...path, key]);
    }
  };
  const value0 = JSON.parse(Buffer.from(encodeSaved(SAVED)).toString()) as object;
  spoil(value0, []);
  const refused = (change: object): string => {
    try {
      decodeSaved(Buffer.from(JSON.stringify({ ...value0, ...change })));
    } catch (error) {
      return (error as CairnError).code;
    }
    return "read";
  };
  assert.equal(refused({}), "read");
  assert.equal(refused({ version: 2 }), "newer_version");
  assert.equal(refused({ hypervisor: "firecracker" }), "damaged");
  assert.equal(refused({ name: "../web" }), "damaged");
});
