import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { Machine } from "../../capture/vm/machine.ts";
import { devicesOf } from "../../capture/vm/qemu.ts";
import { DEVICES, encodeSaved, type Hardware, MEMORY, SIDECAR } from "../../formats/machine/machine.ts";
import type { LibraryHand } from "../hand.ts";
import { cloneMachine } from "./bring.ts";

/** Clones that are refused before a QEMU starts. */

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
  nics: [],
  seed: true,
  port: true,
};

/** Returns a function that clones a memory state of this hardware, as `backup restore --as-machine` does, on a host with a QEMU that only tells its version. */
function restored(
  t: TestContext,
  hardware: Hardware,
): (options?: { sshKeys: string[] } | { userData: string }) => unknown {
  const folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "cairn-bring-")));
  const searchPath = process.env["PATH"] ?? "";
  t.after(() => {
    process.env["PATH"] = searchPath;
    fs.rmSync(folder, { recursive: true });
  });
  const program = path.join(folder, "qemu-system-x86_64");
  fs.writeFileSync(program, "#!/bin/sh\necho QEMU emulator version 7.2.22\n", { mode: 0o755 });
  process.env["PATH"] = `${folder}:${searchPath}`;
  const [root, stage] = [path.join(folder, "machines"), path.join(folder, "stage")];
  fs.mkdirSync(stage);
  const saved = { name: "web", description: "", image: "", id: "0".repeat(32), hypervisorVersion: "7.2.22" };
  const state = { ...saved, hasMemory: true, foreignNics: false, hardware, devices: devicesOf(hardware) };
  fs.writeFileSync(path.join(stage, SIDECAR), encodeSaved(state));
  fs.writeFileSync(path.join(stage, DEVICES), "devices");
  return async (options) => {
    // The files of a restored backup are moved.
    fs.writeFileSync(path.join(stage, MEMORY), "");
    fs.truncateSync(path.join(stage, MEMORY), SIZE);
    const given = { fromDirectory: stage, isRestored: true, ...options };
    await cloneMachine({} as LibraryHand, root, "web-2", given).finally(() =>
      assert.ok(!new Machine(root, "web-2").exists()),
    );
  };
}

test("a clone of a memory state without a seed disk refuses user data and SSH keys", async (t) => {
  const clone = restored(t, { ...HARDWARE, seed: false });
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "cairn-bring-")), "key.pub");
  t.after(() => fs.rmSync(path.dirname(file), { recursive: true }));
  fs.writeFileSync(file, `ssh-ed25519 ${"A".repeat(68)} somebody\n`);
  for (const options of [{ sshKeys: [file] }, { userData: file }])
    await assert.rejects(async () => clone(options), {
      code: "refused",
      message: /the guest of web .* has no seed disk, so a clone cannot give it user data or SSH keys/,
      hint: /^clone a state that was saved while the machine was stopped, or add the keys in the guest/,
    });
});

test("a machine of a backup of a guest with a tap is refused, and the hint names the commands that take a tap", async (t) => {
  const nic = {
    network: "tap" as const,
    tap: "tap0",
    mac: "52:54:00:00:00:01",
    internet: false,
    forwards: [],
  } satisfies Hardware["nics"][number];
  const clone = restored(t, { ...HARDWARE, nics: [nic] });
  await assert.rejects(async () => clone(), {
    code: "usage",
    message: /needs a tap of its own/,
    hint: /^clone it with a tap .*: cairn vm clone --from EXPORT NEW --nic TAP; a backup is first restored into a folder/,
  });
});
