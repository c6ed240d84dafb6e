import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { CairnError } from "../../errors.ts";
import { checkSpace } from "./guards.ts";
import { parseMountinfo } from "../../fs/linux/mounts.ts";
import { existingAncestor, hasRoom, requireRoom, roomAt, whatMayGo } from "./room.ts";

test("a save and a restore keep the same reserve free on a small file system", (t) => {
  const disk = loopFileSystem(t, "ext4", { size: 24 << 20 });
  if (disk === null) return;
  const place = join(disk.root, "not/yet");
  const { freeBytes, reserveBytes } = roomAt(place);
  assert.ok(reserveBytes > 0 && reserveBytes < 1 << 20, `${reserveBytes}`);
  const most = freeBytes - reserveBytes;
  checkSpace(place, most);
  requireRoom(place, most, { hint: "" });
  assert.deepEqual([hasRoom(place, most), hasRoom(place, most + 1)], [true, false]);
  for (const check of [checkSpace, (at: string, bytes: number) => requireRoom(at, bytes, { hint: "" })])
    assert.throws(
      () => check(place, most + 1),
      (error) =>
        error instanceof CairnError &&
        error.details?.["needed_bytes"] === most + 1 &&
        / lacks 1 B: it has .* free; .*Cairn keeps .* free for other programs$/.test(error.message),
    );
});

test("existingAncestor finds the nearest existing folder above absolute, relative and non-UTF-8 paths", () => {
  const odd = Buffer.concat([Buffer.from("/proc/self/none/"), Buffer.of(0xff), Buffer.from("/deep")]);
  assert.equal(existingAncestor(odd).toString(), "/proc/self");
  assert.equal(existingAncestor("none-here/deep").toString(), ".");
  assert.equal(existingAncestor("/").toString(), "/");
});

test("whatMayGo warns of points in memory, on a removable disk, on USB and inside the folder", (t) => {
  const system = mkdtempSync(join(tmpdir(), "cairn-sys-"));
  t.after(() => rmSync(system, { recursive: true, force: true }));
  mkdirSync(join(system, "dev/block"), { recursive: true });
  const addDisk = (number: string, device: string, removable: string): void => {
    const disk = join(system, "devices", device);
    mkdirSync(join(disk, "part1"), { recursive: true });
    writeFileSync(join(disk, "removable"), `${removable}\n`);
    writeFileSync(join(disk, "part1/partition"), "1\n");
    symlinkSync(join(disk, "part1"), join(system, "dev/block", number));
  };
  addDisk("8:1", "pci0/ata1/block/sda", "0");
  addDisk("8:17", "pci0/usb2/2-1/block/sdb", "0");
  addDisk("179:1", "mmc0/block/mmcblk0", "1");
  const told = (device: string, type: string): string | null =>
    whatMayGo("/x", "/home/ana", parseMountinfo(`1 0 ${device} / /x rw - ${type} /none rw`)[0]!, system);
  assert.equal(told("8:1", "ext4"), null);
  assert.equal(told("8:17", "ext4"), "on the removable disk sdb: without that disk there are none");
  assert.equal(told("179:1", "vfat"), "on the removable disk mmcblk0: without that disk there are none");
  assert.equal(told("0:40", "tmpfs"), "in memory (tmpfs): a reboot deletes them");
  assert.equal(told("0:41", "btrfs"), null);
  assert.match(whatMayGo(join(system, "devices/none"), system)!, /^inside the folder: /);
});
