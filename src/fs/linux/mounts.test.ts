import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { CairnError } from "../../errors.ts";
import {
  filesystemKind,
  filesystemId,
  filesystemUuid,
  freeSpace,
  isMountPoint,
  kindOfMagic,
  mountOf,
  mountsInside,
  onSameMount,
  parseMountinfo,
  readMounts,
  resolveMount,
} from "./mounts.ts";

const SAMPLE = String.raw`
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:31 / /data rw shared:1 master:2 - tmpfs tmp\040fs rw,size=1k
41 40 254:0 /sub/dir /data/with\040blank\134and\012newline rw - ext4 /dev/vda rw
42 27 0:50 / /deep/er rw - tmpfs hidden rw
43 27 0:51 / /deep rw - tmpfs above rw
44 43 0:52 / /deep rw - tmpfs stacked rw
broken line
`;

test("parseMountinfo decodes escapes and skips optional fields", () => {
  const mounts = parseMountinfo(SAMPLE);
  assert.equal(mounts.length, 6);
  assert.equal(mounts[1]!.source, "tmp fs");
  assert.equal(mounts[2]!.mountPoint.toString(), "/data/with blank\\and\nnewline");
  assert.equal(mounts[2]!.root.toString(), "/sub/dir");
});

test("resolveMount returns the topmost mount if several mounts cover a path", () => {
  const mounts = parseMountinfo(SAMPLE);
  const sourceOf = (path: string): string | undefined => resolveMount(Buffer.from(path), mounts)?.source;
  assert.equal(sourceOf("/etc"), "/dev/vda");
  assert.equal(sourceOf("/data2"), "/dev/vda");
  assert.equal(sourceOf("/data/x"), "tmp fs");
  assert.equal(sourceOf("/deep/er/x"), "stacked");
});

test("resolveMount finds JuiceFS mounts, and does not confuse /mnt/jfs with /mnt/jfs2", () => {
  const mounts = parseMountinfo(
    String.raw`
27 1 254:0 / / rw - ext4 /dev/vda rw
50 27 0:60 / /mnt/jfs rw,relatime shared:9 - fuse.juicefs JuiceFS:my\040vol rw,user_id=0
51 50 0:61 / /mnt/jfs/in\040ner rw - fuse.juicefs JuiceFS:other rw
52 27 0:62 / /mnt/jfs2 rw - fuse.other JuiceFS:no rw
53 50 254:0 /disk /mnt/jfs/disk rw - ext4 /dev/vda rw
54 27 0:60 /team\134a /srv/team\043a rw - fuse.juicefs JuiceFS:my\040vol rw
`,
  );
  const found = (path: string): (string | undefined)[] => {
    const mount = resolveMount(Buffer.from(path), mounts);
    return [mount?.type, mount?.source, mount?.mountPoint.toString()];
  };
  assert.deepEqual(found("/mnt/jfs/ws"), ["fuse.juicefs", "JuiceFS:my vol", "/mnt/jfs"]);
  assert.deepEqual(found("/mnt/jfs/in ner/ws"), ["fuse.juicefs", "JuiceFS:other", "/mnt/jfs/in ner"]);
  assert.deepEqual(found("/mnt/jfs/in"), ["fuse.juicefs", "JuiceFS:my vol", "/mnt/jfs"]);
  assert.equal(found("/mnt/jfs2/ws")[0], "fuse.other");
  assert.equal(found("/mnt/jfs/disk/ws")[0], "ext4");
  assert.equal(found("/mnt/jf")[0], "ext4");
  assert.deepEqual(found("/srv/team#a/ws"), ["fuse.juicefs", "JuiceFS:my vol", "/srv/team#a"]);
  assert.equal(mounts.at(-1)!.root.toString(), "/team\\a");
});

test("onSameMount compares mounts, or device numbers if the list of mounts is empty", () => {
  assert.deepEqual([onSameMount("/", "/bin"), onSameMount("/", "/proc")], [true, false]);
  assert.deepEqual([onSameMount("/", "/bin", []), onSameMount("/", "/proc", [])], [true, false]);
  assert.throws(() => onSameMount("/", "/nothing", []), { code: "not_found" });
  for (const list of [readMounts(), []])
    assert.deepEqual(
      ["/", "/proc", "/bin"].map((path) => isMountPoint(path, list)),
      [true, true, false],
    );
});

test("mountOf returns the mount of the temporary folder, and throws not_found for a missing folder", () => {
  const mounts = readMounts();
  assert.ok(mounts.length > 0);
  const mount = mountOf(tmpdir());
  assert.ok(mount !== null && tmpdir().startsWith(mount.mountPoint.toString()));
  assert.ok(mountsInside("/").some((inside) => inside.mountPoint.toString() === "/proc"));
  assert.throws(
    () => mountOf(join(tmpdir(), "cairn-none")),
    (error) => error instanceof CairnError && error.code === "not_found",
  );
});

test("kindOfMagic returns the kind of file system for a statfs magic number", () => {
  assert.equal(kindOfMagic(0xff534d42).place, "network");
  assert.equal(kindOfMagic(0xff534d42 | 0).name, "cifs");
  assert.equal(kindOfMagic(0x794c7630).overlay, true);
  assert.equal(kindOfMagic(12345).place, "unknown");
  assert.equal(filesystemKind("/proc").place, "unknown");
  const space = freeSpace(tmpdir());
  assert.ok(space.freeBytes > 0 && space.freeBytes <= space.totalBytes);
  const uuid = filesystemUuid(tmpdir());
  assert.ok(uuid === null || uuid.length >= 8);
});

test("freeSpace counts the space reserved for root neither as free nor as used", (context) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-mounts-"));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const [image, mounted] = [join(folder, "image"), join(folder, "mounted")];
  mkdirSync(mounted);
  writeFileSync(image, "");
  truncateSync(image, 64 << 20);
  const isMade = spawnSync("mkfs.ext4", ["-q", "-F", "-m", "50", image], { stdio: "ignore" }).status === 0;
  if (!isMade || spawnSync("mount", ["-o", "loop", image, mounted], { stdio: "ignore" }).status !== 0)
    return context.skip("no mkfs.ext4, or mounting is not allowed");
  try {
    const { freeBytes, usedBytes, totalBytes } = freeSpace(mounted);
    assert.ok(freeBytes > 0 && freeBytes < totalBytes / 2, `${freeBytes} of ${totalBytes}`);
    assert.ok(usedBytes < totalBytes / 4, `${usedBytes} of ${totalBytes}`);
  } finally {
    spawnSync("umount", [mounted], { stdio: "ignore" });
  }
});

const unshare = spawnSync("unshare", ["-m", "true"]).status === 0;

test(
  "mountsInside finds bind mounts and mounts whose paths contain spaces, newlines and backslashes",
  { skip: unshare ? false : "needs the right to mount" },
  (context) => {
    const root = mkdtempSync(join(tmpdir(), "cairn-mounts-"));
    context.after(() => rmSync(root, { recursive: true, force: true }));
    const inside = join(root, "ws", "a b\n\\c");
    mkdirSync(inside, { recursive: true });
    mkdirSync(join(root, "ws", "bound"));
    mkdirSync(join(root, "other"));
    const module = new URL("mounts.ts", import.meta.url).href;
    const script = `
    import { mountsInside, mountOf, isMountPoint, filesystemKind } from ${JSON.stringify(module)};
    const inside = mountsInside(process.argv[1]).map((mount) => [mount.mountPoint.toString(), mount.type]);
    console.log(JSON.stringify({ inside, of: mountOf(inside[0][0]).type, point: isMountPoint(inside[1][0]), kind: filesystemKind(inside[0][0]).name }));`;
    const shell = 'mount -t tmpfs none "$1" && mount --bind "$2" "$3" && exec "$4" --input-type=module -e "$5" "$6"';
    const child = spawnSync(
      "unshare",
      [
        "-m",
        "sh",
        "-c",
        shell,
        "sh",
        inside,
        join(root, "other"),
        join(root, "ws", "bound"),
        process.execPath,
        script,
        join(root, "ws"),
      ],
      { encoding: "utf8" },
    );
    assert.equal(child.status, 0, child.stderr);
    const seen = JSON.parse(child.stdout) as { inside: [string, string][]; of: string; point: boolean; kind: string };
    assert.deepEqual(
      seen.inside.map(([path]) => path),
      [inside, join(root, "ws", "bound")],
    );
    assert.deepEqual([seen.of, seen.point, seen.kind], ["tmpfs", true, "tmpfs"]);
    assert.equal(isMountPoint(join(root, "ws", "bound")), false, "the mounts were another namespace's");
  },
);

test("filesystemId is equal for all folders of a file system, and null for a missing folder", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-fsid-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const id = filesystemId(folder);
  assert.ok(id !== null && id !== "");
  mkdirSync(join(folder, "inner"));
  assert.equal(filesystemId(join(folder, "inner")), id);
  assert.equal(filesystemId(join(folder, "absent")), null);
});

test("two new file systems of one type have different ids", (t) => {
  const ids = [loopFileSystem(t, "btrfs"), loopFileSystem(t, "btrfs")].map((volume) =>
    volume === null ? null : filesystemId(volume.root),
  );
  if (ids.includes(null)) return;
  assert.notEqual(ids[0], ids[1]);
});
