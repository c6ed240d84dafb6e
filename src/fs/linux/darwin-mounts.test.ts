import assert from "node:assert/strict";
import { test } from "node:test";
import { knownVolumes, parseMountLines, volumeOf } from "./darwin-mounts.ts";
import { kindOfVolume } from "./mounts.ts";

const LINES = `/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect, root data)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//me@server/share on /Volumes/team on (one) (smbfs, nodev, nosuid, mounted by me)
/dev/disk5s1 on /Volumes/old (hfs, local, nodev, nosuid, journaled)
drive on /Volumes/drive (macfuse, local, synchronous, mounted by me)
something else
`;

test("the kind of a volume is told by the line of its mount", () => {
  const volumes = parseMountLines(LINES);
  assert.equal(volumes.length, 7);
  const kind = (path: string): string[] => {
    const { name, place } = kindOfVolume(volumeOf(Buffer.from(path), volumes));
    return [name, place];
  };
  assert.deepEqual(kind("/Users/me/work"), ["apfs", "local"]);
  assert.deepEqual(kind("/System/Volumes/Data/home/x"), ["autofs", "unknown"]);
  assert.deepEqual(kind("/Volumes/team on (one)/a"), ["smbfs", "network"]);
  assert.deepEqual(kind("/Volumes/team"), ["apfs", "local"]);
  assert.deepEqual(kind("/Volumes/old"), ["hfs", "local"]);
  assert.deepEqual(kind("/Volumes/drive/x"), ["macfuse", "fuse"]);
  assert.deepEqual(kindOfVolume(volumeOf(Buffer.from("/x"), [])), kindOfVolume(null));
  assert.equal(kindOfVolume(null).place, "unknown");
});

test("volumes are asked for again when something lies on a device that was not met before", () => {
  let asked = 0;
  const ask = (): ReturnType<typeof parseMountLines> => parseMountLines(LINES).slice(0, ++asked);
  const counts = [-1, -1, -2, -1, -2].map((device) => knownVolumes(device, ask).length);
  assert.deepEqual(counts, [1, 1, 2, 2, 2]);
});
