import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { after, before, suite, test } from "node:test";
import { leftoversIn } from "../../src/capture/vm/leftovers.ts";
import { Machine } from "../../src/capture/vm/machine.ts";
import { buildCommand, cairn, cairnOk, type Running, SCRATCH, startCairn } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { allocated, boot, type Count, endMachines, findGuest, Guest, MACHINES, vm, vmIn } from "../fixtures/guest.ts";

/** Virtual machines with a real guest: saved while they run, cloned by many, brought back. */

const files = findGuest();
const skip = "reason" in files ? files.reason : false;
const GOLDEN = path.join(SCRATCH, "golden");
const IMAGE = path.join(SCRATCH, "image");
const DATA = randomBytes(25 << 20);
const SCRATCH_FOLDER = path.join(SCRATCH, "no-machine");
let saved: Count;
let afterSave: number;
let a: Guest;

/** Why no tap can be made here; false where one can. */
function noTap(): string | false {
  if (process.geteuid?.() !== 0 || !fs.existsSync("/dev/net/tun")) return "needs root and /dev/net/tun";
  return spawnSync("ip", ["-V"]).status === 0 ? false : "ip is not installed";
}

const refused = (line: string[]): { code: string; message: string } => {
  const { error, stdout } = cairn(["vm", ...line]);
  assert.ok(error !== null, stdout);
  return error;
};

/** Cuts the states of devices of a directory in half; its envelope says that they are right. */
function breakDevices(directory: string): void {
  const file = path.join(directory, "content/devices");
  fs.truncateSync(file, Math.floor(fs.statSync(file).size / 2));
  const envelope = path.join(directory, "snapshot.json");
  const value = JSON.parse(fs.readFileSync(envelope, "utf8")) as {
    files: { name: string; size: number; sha256: string }[];
  };
  const listed = value.files.find(({ name }) => name === "content/devices")!;
  listed.size = fs.statSync(file).size;
  listed.sha256 = execFileSync("sha256sum", [file], { encoding: "utf8" }).split(" ")[0]!;
  fs.writeFileSync(envelope, JSON.stringify(value));
}

/** The memory that a QEMU has mapped privately from a blob. */
function mappedMemory(pid: number): Buffer {
  const [, from, to] = /^(\w+)-(\w+) rw-p \w+ \S+ \d+ +\S+\/\.shared\/blobs\//m.exec(
    fs.readFileSync(`/proc/${pid}/maps`, "utf8"),
  )!;
  const start = Number.parseInt(from!, 16);
  const memory = Buffer.alloc(Number.parseInt(to!, 16) - start);
  const fd = fs.openSync(`/proc/${pid}/mem`, "r");
  for (let at = 0; at < memory.length;) at += fs.readSync(fd, memory, at, memory.length - at, start + at);
  fs.closeSync(fd);
  return memory;
}

suite("virtual machines", { skip }, () => {
  before(async () => {
    if ("reason" in files) return;
    fs.writeFileSync(IMAGE, "");
    fs.truncateSync(IMAGE, 10 * 2 ** 30);
    const fd = fs.openSync(IMAGE, "r+");
    fs.writeSync(fd, DATA, 0, DATA.length, 1 << 20);
    fs.closeSync(fd);
    a = await boot("a", files, ["--nic", "user", "--image", IMAGE]);
    saved = (await a.counted()).at(-1)!;
    const result = vm("save", "a", "-m", "golden");
    assert.equal(result["has_memory"], true);
    afterSave = a.counts().at(-1)!.count;
    vm("export", "a", "--to", GOLDEN);
  });
  after(() => endMachines());

  test("a saved machine keeps running, and a clone continues from the saved state with its own identity", async () => {
    const [last] = (await a.counted(2)).slice(-1);
    assert.ok(last!.count > saved.count);
    assert.equal(last!.token, saved.token);
    const { data, warnings } = cairnOk(["vm", "clone", "a", "b"]);
    assert.doesNotMatch(warnings.join(), /VM generation driver/);
    const { has_memory, nics } = data as { has_memory: boolean; nics: { mac: string }[] };
    assert.equal(has_memory, true);
    const b = new Guest("b");
    const [first, ...more] = await b.counted(3);
    assert.equal(first!.token, saved.token, "memory");
    assert.ok(first!.count >= saved.count && first!.count <= afterSave + 1, `${first!.count} after ${saved.count}`);
    const now = more.at(-1)!;
    assert.notEqual(nics[0]!.mac, last!.mac);
    await b.hasAddress(nics[0]!.mac);
    assert.ok(Math.abs(now.rtc - Date.now() / 1000) < 60, "its clock shows the current time");
    await b.type("dmesg | grep 'virtual machine fork'");
    await eventually("the kernel draws fresh randomness", () =>
      b.said().includes("reseeded due to virtual machine fork"),
    );
    await b.type("dd if=/dev/vda bs=1M skip=1 count=25 2>/dev/null | sha256sum");
    const digest = createHash("sha256").update(DATA).digest("hex");
    await eventually("its disk lies on the image", () => b.said().includes(digest));
    const drawn = [...a.counts(), ...(await b.itself())].map(({ uuid }) => uuid);
    assert.equal(new Set(drawn).size, drawn.length);
  });

  test("a clone can be saved and cloned again with its memory", async () => {
    const b = new Guest("b");
    const before = (await b.counted()).at(-1)!;
    vm("save", "b");
    vm("clone", "b@latest", "b2");
    const [first] = await new Guest("b2").counted(2);
    assert.equal(first!.token, saved.token);
    assert.ok(first!.count >= before.count);
    await b.counted();
    vm("rm", "b2", "--force");
  });

  test("a machine travels through a pipe, and a stream that stops early makes none", async () => {
    const tar = path.join(SCRATCH, "stream.tar");
    const command = `'${process.execPath}' '${buildCommand()}' vm`;
    const sh = (line: string): { status: number | null; stderr: string } =>
      spawnSync("sh", ["-c", line], { encoding: "utf8" });
    const piped = sh(`${command} export a --to - | tee '${tar}' | ${command} import - --name piped`);
    assert.equal(piped.status, 0, piped.stderr);
    const [first] = await new Guest("piped").counted();
    assert.equal(first!.token, saved.token);
    vm("rm", "piped", "--force");
    const { size } = fs.statSync(tar);
    for (const bytes of [0, 100_000, Math.floor(size / 2), size - 16_384]) {
      const { status, stderr } = sh(`head -c ${bytes} '${tar}' | ${command} import - --name cut`);
      assert.equal(status === 6 || status === 3, true, `${bytes} of ${size}: ${status} ${stderr}`);
    }
    fs.truncateSync(tar, size / 2);
    assert.equal(refused(["import", tar, "--name", "cut"]).code, "damaged");
    assert.equal(refused(["export", "a", "--to", "-"]).code, "usage");
    const left = fs.readdirSync(MACHINES).filter((name) => name.startsWith(".") && name !== ".shared");
    assert.deepEqual(left, []);
    assert.ok(!fs.existsSync(path.join(MACHINES, "cut")));
  });

  test("vm set changes a stopped machine, also if it was killed, and vm history and vm logs show what there is", () => {
    const disk = path.join(MACHINES, "changed/live/disk-0.qcow2");
    const size = (): number =>
      (
        JSON.parse(execFileSync("qemu-img", ["info", "--output=json", disk], { encoding: "utf8" })) as {
          "virtual-size": number;
        }
      )["virtual-size"];
    vm("create", "changed", "--image", IMAGE);
    assert.equal(refused(["history", "changed"]).code, "not_found");
    const set = (...options: string[]): Record<string, unknown> => vm("set", "changed", ...options);
    const { memory, cpus } = set("--memory", "512M", "--cpus", "2");
    assert.deepEqual([memory, cpus], [512 << 20, 2]);
    set("--disk-size", "11G");
    assert.equal(size(), 11 * 2 ** 30);
    assert.equal(refused(["set", "changed", "--disk-size", "1G"]).code, "refused");
    assert.equal(refused(["set", "changed", "--memory", "512K"]).code, "usage");
    assert.match(refused(["set", "changed", "--cpus", "0"]).message, /^a machine has 1 to 255 processors, not 0$/);
    assert.equal(refused(["set", "changed"]).code, "usage");
    assert.equal(refused(["set", "a", "--cpus", "2"]).code, "conflict");
    assert.ok(cairn(["vm", "set", "changed", "--disk-size", "12G"], { failpoint: "vm-set.grown" }).killed);
    assert.equal(size(), 12 * 2 ** 30);
    vm("save", "changed", "-m", "with a larger disk");
    const [disk0] = vm("inspect", "changed")["disks"] as { size: number }[];
    assert.equal(disk0!.size, 12 * 2 ** 30, "of the change that was killed");
    vm("clone", "changed", "changed-2");
    vm("rm", "changed-2");
    const { save_points } = vm("history", "changed") as { save_points: { message: string }[] };
    assert.deepEqual(
      save_points.map(({ message }) => message),
      ["with a larger disk"],
    );
    assert.match(fs.readFileSync(String(vm("logs", "a")["console_log"]), "utf8"), /token/);
    vm("rm", "changed", "--delete-points");
  });

  test("vm create, vm clone and vm import make up a name that no machine has", () => {
    const made = (...line: string[]): string => String(vm(...line)["name"]);
    const [directory, tar] = ["unnamed", "unnamed.tar"].map((name) => path.join(SCRATCH, name)) as [string, string];
    const first = made("create", "--image", IMAGE);
    vm("save", first);
    vm("export", first, "--to", directory);
    execFileSync("tar", ["-C", directory, "-cf", tar, "content", "snapshot.json"]);
    const names = [first, made("clone", first), made("clone", "--from", directory), made("import", tar)];
    assert.equal(new Set(names).size, 4);
    for (const name of names) {
      assert.match(name, /^[a-z]+-[a-z]+$/);
      vm("rm", name, "--delete-points");
    }
    assert.equal(refused(["clone"]).code, "usage");
    assert.equal(refused(["clone", "--from", directory, first, "more"]).code, "usage");
  });

  test("a snapshot of cocoon is refused by that name", () => {
    const folder = path.join(SCRATCH, "cocoon");
    fs.mkdirSync(folder);
    const config = { id: "1", name: "web", hypervisor: "cloud-hypervisor", cpu: 2, memory: 1 << 30, nics: 1 };
    fs.writeFileSync(path.join(folder, "snapshot.json"), JSON.stringify({ version: 1, config }));
    for (const line of [
      ["clone", "--from", folder, "of-cocoon"],
      ["restore", "a", "--from", folder],
    ]) {
      const { code, message } = refused(line);
      assert.equal(code, "refused");
      assert.match(message, /snapshot of cocoon/);
    }
  });

  test("a hibernated guest goes on where it was paused, or boots after vm stop --force", async () => {
    vm("clone", "a", "sleeper");
    const guest = new Guest("sleeper");
    for (const round of [1, 2]) {
      const { token } = (await guest.counted(2)).at(-1)!;
      vm("hibernate", "sleeper", "-m", `night ${round}`);
      const last = guest.counts().at(-1)!.count;
      assert.deepEqual([vm("inspect", "sleeper")["state"], guest.pid()], ["hibernated", null]);
      assert.equal(refused(["hibernate", "sleeper"]).code, "conflict");
      assert.equal(vm("save", "sleeper")["has_memory"], true, "of what it goes on from");
      assert.equal(vm("stop", "sleeper")["state"], "hibernated");
      vm("start", "sleeper");
      const [first] = await guest.counted(2);
      assert.equal(first!.token, token);
      // The console may lack a line that the guest wrote while it was paused.
      assert.ok(first!.count > last && first!.count <= last + 2, `${first!.count} after ${last}`);
    }
    vm("hibernate", "sleeper");
    fs.truncateSync(path.join(MACHINES, "sleeper/live/devices"), 1000);
    assert.equal(refused(["start", "sleeper"]).code, "io");
    vm("restore", "sleeper", "latest");
    await guest.counted();
    vm("hibernate", "sleeper");
    assert.equal(vm("stop", "sleeper", "--force")["state"], "stopped");
    assert.ok(!fs.existsSync(path.join(MACHINES, "sleeper/live/memory")));
    vm("rm", "sleeper", "--delete-points");
  });

  test("the saved memory of a clone is that of its paused guest, which an emulation does not run while it is copied", async () => {
    vm("clone", "a", "mapped");
    await new Guest("mapped").counted(2);
    const wait = path.join(SCRATCH, "mapped-wait");
    const paused = async (at: string, words: string[]): Promise<Running> => {
      fs.writeFileSync(wait, "");
      const run = startCairn(["vm", ...words], { failpoint: `${at}@${wait}` });
      await run.paused;
      return run;
    };
    const saving = await paused("vm-save.moving", ["save", "mapped"]);
    const since = performance.now();
    vm("clone", "a", "other");
    const held = performance.now() - since;
    fs.rmSync(wait);
    const { data } = await saving.ended;
    if (vm("inspect", "mapped")["accelerator"] === "tcg")
      assert.ok((data["paused_ms"] as number) >= held, `${held} ms`);
    vm("rm", "other", "--force");

    const hibernating = await paused("vm-hibernate.staged", ["hibernate", "mapped"]);
    const memory = mappedMemory(new Guest("mapped").pid()!);
    assert.ok(memory.equals(fs.readFileSync(path.join(MACHINES, "mapped/live/memory"))));
    fs.rmSync(wait);
    assert.equal((await hibernating.ended).status, 0);
    assert.equal(vm("inspect", "mapped")["state"], "hibernated");
    vm("rm", "mapped", "--force", "--delete-points");
  });

  test("a second machine of a save point reads nothing that was verified before, and finds what changed since", async () => {
    const kept = path.join(MACHINES, "a/saved");
    const { control_directory: control } = cairnOk(["status", "-C", kept]).data["workspace"] as Record<string, string>;
    const envelope = JSON.parse(fs.readFileSync(path.join(GOLDEN, "snapshot.json"), "utf8")) as {
      files: { name: string; sha256: string }[];
    };
    const [memory, devices] = ["memory", "devices"].map(
      (wanted) => envelope.files.find(({ name }) => name === `content/${wanted}`)!.sha256,
    ) as [string, string];
    const digestOf = (file: string): string => createHash("sha256").update(fs.readFileSync(file)).digest("hex");
    const continues = async (name: string): Promise<void> => {
      const [first] = await new Guest(name).counted();
      assert.equal(first!.token, saved.token);
    };
    const spoil = (file: string): void => {
      const { size, mtime, atime } = fs.statSync(file);
      const fd = fs.openSync(file, "r+");
      const last = Buffer.alloc(1);
      fs.readSync(fd, last, 0, 1, size - 1);
      fs.writeSync(fd, Buffer.of(last[0]! ^ 1), 0, 1, size - 1);
      fs.closeSync(fd);
      fs.utimesSync(file, atime, mtime);
    };
    vm("clone", "a", "known");
    // Without its packs the store has no content.
    const packs = path.join(control!, "store/data");
    fs.renameSync(packs, `${packs}-away`);
    vm("clone", "a", "again");
    await continues("again");
    fs.renameSync(`${packs}-away`, packs);

    const blob = path.join(MACHINES, ".shared/blobs", memory);
    assert.equal(digestOf(blob), memory);
    spoil(blob);
    const { warnings } = cairnOk(["vm", "clone", "a", "mended"]);
    assert.match(warnings.join(), new RegExp(`blobs/${memory} is damaged`));
    assert.equal(digestOf(blob), memory);
    await continues("mended");

    spoil(path.join(kept, "devices"));
    vm("clone", "a", "stored");
    await continues("stored");
    assert.equal(digestOf(path.join(MACHINES, "stored/live/devices")), devices);
    spoil(path.join(kept, "devices"));
    for (const name of ["known", "again", "mended", "stored"]) vm("rm", name, "--force");
  });

  test("sixteen simultaneous clones of a read-only export have different identities", async () => {
    execFileSync("chmod", ["-R", "a-w", GOLDEN]);
    const names = Array.from({ length: 16 }, (_, i) => `many-${i}`);
    const ended = names.map(async (name) => {
      const line = ["vm", "clone", "--from", GOLDEN, name];
      const child = spawn(process.execPath, [buildCommand(), ...line], { stdio: ["ignore", "ignore", "inherit"] });
      return await new Promise((resolve) => child.once("exit", resolve));
    });
    assert.deepEqual(new Set(await Promise.all(ended)), new Set([0]));
    execFileSync("chmod", ["-R", "u+w", GOLDEN]);
    const uuids = new Set<string>();
    for (const name of names) {
      const counts = await new Guest(name).itself();
      assert.equal(counts[0]!.token, saved.token);
      for (const { uuid } of counts) {
        assert.ok(!uuids.has(uuid), "no two draw the same");
        uuids.add(uuid);
      }
    }
    const { machines } = vm("list") as {
      machines: { name: string; id: string; state: string; nics: { mac: string }[] }[];
    };
    const many = machines.filter(({ name }) => name.startsWith("many-"));
    assert.ok(many.every(({ state }) => state === "running"));
    for (const key of [many.map(({ id }) => id), many.map(({ nics }) => nics[0]!.mac)])
      assert.equal(new Set(key).size, 16);
    const generations = many.map(({ name }) => {
      const { generation } = JSON.parse(fs.readFileSync(path.join(MACHINES, name, "machine.json"), "utf8")) as {
        generation: string;
      };
      return generation;
    });
    assert.equal(new Set(generations).size, 16);
    for (const name of names) vm("rm", name, "--force");
  });

  test("eight clones of a point and of a directory at once work, or are busy, while one is removed and the source is saved", async () => {
    vm("clone", "a", "ninth");
    const ended = async (...line: string[]): Promise<number | null> => {
      const child = spawn(process.execPath, [buildCommand(), "vm", ...line], { stdio: "ignore" });
      const [status] = (await once(child, "exit")) as [number | null];
      return status;
    };
    const names = Array.from({ length: 8 }, (_, i) => `beside-${i}`);
    const clones = names.map(async (name, i) => ended("clone", ...(i % 2 === 0 ? ["a"] : ["--from", GOLDEN]), name));
    const others = [ended("rm", "ninth", "--force"), ended("save", "a")];
    const statuses = await Promise.all(clones);
    const BUSY = 5;
    for (const [i, status] of statuses.entries())
      assert.ok(status === 0 || status === BUSY, `${names[i]}: exit ${status}`);
    assert.deepEqual(await Promise.all(others), [0, 0]);
    const made = names.filter((_, i) => statuses[i] === 0);
    assert.ok(made.length > 0);
    const drawn = new Set<string>();
    for (const name of made) {
      const counts = await new Guest(name).itself();
      assert.equal(counts[0]!.token, saved.token);
      for (const { uuid } of counts) assert.equal(drawn.size, drawn.add(uuid).size - 1, "no two draw the same");
    }
    const left = (vm("list") as { machines: { name: string }[] }).machines.map(({ name }) => name);
    assert.deepEqual(left.filter((name) => /^beside-|ninth/.test(name)).toSorted(), made);
    await a.counted();
    for (const name of made) vm("rm", name, "--force");
  });

  test("vm restore and vm clone refuse an export with a truncated or changed file", async () => {
    const pid = a.pid();
    const names = fs.readdirSync(path.join(GOLDEN, "content"), { recursive: true, encoding: "utf8" });
    for (const name of names) {
      const file = path.join(GOLDEN, "content", name);
      if (!fs.statSync(file).isFile()) continue;
      const { size, mtime } = fs.statSync(file);
      const fd = fs.openSync(file, "r+");
      const last = Buffer.alloc(1);
      fs.readSync(fd, last, 0, 1, size - 1);
      const spoil: [() => void, () => void][] = [
        [() => fs.ftruncateSync(fd, size - 1), () => void fs.writeSync(fd, last, 0, 1, size - 1)],
        [
          () => void fs.writeSync(fd, Buffer.of(last[0]! ^ 1), 0, 1, size - 1),
          () => void fs.writeSync(fd, last, 0, 1, size - 1),
        ],
      ];
      for (const [make, mend] of spoil) {
        make();
        // Times that are set back hide nothing.
        fs.utimesSync(file, mtime, mtime);
        for (const line of [
          ["restore", "a"],
          ["clone", "spoilt"],
        ]) {
          const error = refused([line[0]!, "--from", GOLDEN, line[1]!]);
          assert.equal(error.code, "damaged");
          assert.match(error.message, new RegExp(`content/${name}`));
        }
        mend();
      }
      fs.closeSync(fd);
    }
    const envelope = path.join(GOLDEN, "snapshot.json");
    const text = fs.readFileSync(envelope, "utf8");
    fs.rmSync(envelope);
    assert.equal(refused(["restore", "a", "--from", GOLDEN]).code, "not_found");
    fs.writeFileSync(envelope, text);
    assert.equal(a.pid(), pid);
    await a.counted();
    assert.ok(!fs.existsSync(path.join(MACHINES, "spoilt")));
  });

  test("vm restore brings back memory and disk, and needs --force for the state of another machine", async () => {
    const before = (await a.counted()).at(-1)!;
    vm("restore", "a", "--from", GOLDEN);
    const [first] = await a.counted(3);
    assert.ok(first!.count < before.count + 1 && first!.count >= saved.count);
    await a.hasAddress(before.mac);
    assert.equal(refused(["restore", "b", "--from", GOLDEN]).code, "refused");
    const b = new Guest("b");
    const own = (await b.counted()).at(-1)!.mac;
    const forced = cairnOk(["vm", "restore", "b", "--from", GOLDEN, "--force"]);
    assert.match(forced.warnings.join(), /another machine/);
    // Its identity stays.
    await b.hasAddress(own);
    const { lineage } = vm("inspect", "b") as { lineage: string[] };
    assert.equal(
      refused(["restore", "b", "--from", GOLDEN]).code,
      "refused",
      "the foreign state is not of its lineage",
    );
    assert.equal(lineage.length, 1);
    assert.equal(refused(["restore", "b", "--force"]).code, "usage");
    assert.equal(refused(["restore", "b"]).code, "usage");
    assert.equal(refused(["restore", "b", "latest", "--from", GOLDEN]).code, "usage");
    vm("create", "plain", "--kernel", (files as { kernel: string }).kernel, "--disk", "10G", "--nic", "none");
    const nics = refused(["restore", "plain", "--from", GOLDEN, "--force"]);
    assert.equal(nics.code, "refused");
    assert.match(nics.message, /network devices/);
    vm("restore", "a", "latest");
    await a.counted();
  });

  test("vm restore puts the old state back if QEMU cannot load the new one, and the guest continues", async () => {
    const broken = path.join(SCRATCH, "broken");
    fs.cpSync(GOLDEN, broken, { recursive: true });
    breakDevices(broken);
    const pid = a.pid();
    const before = (await a.counted()).at(-1)!;
    const error = refused(["restore", "a", "--from", broken]);
    assert.equal(error.code, "io");
    assert.equal(a.pid(), pid);
    assert.ok((await a.counted()).at(-1)!.count > before.count);
    assert.equal(refused(["clone", "--from", broken, "broken"]).code, "io");
    assert.ok(!fs.existsSync(path.join(MACHINES, "broken")));
    assert.deepEqual(
      fs.readdirSync(a.folder).filter((name) => name.startsWith("live.") || name.startsWith(".")),
      [],
    );
  });

  test("a saved machine can be backed up, and cloned from the restored folder", async () => {
    const repository = path.join(SCRATCH, "repository");
    const env = { CAIRN_PASSWORD: "secret" };
    const folder = path.join(MACHINES, "a/saved");
    const { data } = cairnOk(["history", "-C", folder]);
    const [point] = data["save_points"] as { payload_root_hash: string }[];
    cairnOk(["backup", "init", "-r", repository], { env });
    cairnOk(["backup", "create", "-r", repository, "-C", folder], { env });
    const back = path.join(SCRATCH, "back");
    cairnOk(["backup", "restore", "latest", "-r", repository, "--to", back], { env });
    const again = cairnOk(["save", back]).data["save_point"] as { payload_root_hash: string };
    assert.equal(again.payload_root_hash, point!.payload_root_hash);
    const directory = path.join(SCRATCH, "from-backup");
    cairnOk(["export", "head", "--to", directory, "-C", back]);
    vm("clone", "--from", directory, "from-backup");
    const [first] = await new Guest("from-backup").counted();
    assert.equal(first!.token, saved.token);
    vm("rm", "from-backup", "--force");
    const restoring = ["backup", "restore", "latest", "-r", repository, "--as-machine"];
    const hidden = (): string[] => fs.readdirSync(MACHINES).filter((name) => /^\.(?!shared$)/.test(name));
    for (const failpoint of ["vm-state.checked", "vm-create.begun", "vm-clone.brought"]) {
      assert.ok(cairn([...restoring, "as-machine"], { env, failpoint }).killed, failpoint);
      assert.equal(refused(["inspect", "as-machine"]).code, "not_found", failpoint);
    }
    cairnOk([...restoring, "as-machine"], { env });
    assert.equal((await new Guest("as-machine").counted())[0]!.token, saved.token);
    assert.deepEqual(hidden(), [], "nothing of the killed commands is left");
    assert.equal(cairn([...restoring, "as-machine"], { env }).error?.code, "already_exists");
    assert.equal(cairn([...restoring, "no name"], { env }).error?.code, "usage");
    fs.mkdirSync(SCRATCH_FOLDER);
    fs.writeFileSync(path.join(SCRATCH_FOLDER, "file"), "text");
    cairnOk(["save", SCRATCH_FOLDER]);
    cairnOk(["backup", "create", "-r", repository, "-C", SCRATCH_FOLDER], { env });
    assert.equal(cairn([...restoring, "no-machine"], { env }).error?.code, "usage");
    assert.deepEqual(hidden(), []);
    vm("rm", "as-machine", "--force");
  });

  test("vm export --mode lets the group of the files read an export", () => {
    const directory = path.join(SCRATCH, "of-the-group");
    assert.equal(refused(["export", "a", "--to", directory, "--mode", "rw"]).code, "usage");
    vm("export", "a", "--to", directory, "--mode", "640");
    const modes = (name: string): number => fs.statSync(path.join(directory, name)).mode & 0o777;
    for (const name of ["", "content", "content/blobs"]) assert.equal(modes(name), 0o750, name);
    for (const name of ["snapshot.json", "content/memory", "content/disk-0.qcow2"])
      assert.equal(modes(name), 0o640, name);
    fs.rmSync(directory, { recursive: true });
  });

  test("vm export stores only the 25 MiB of data of a 10 GiB disk", () => {
    const content = path.join(GOLDEN, "content");
    const [base] = fs
      .readdirSync(path.join(content, "blobs"))
      .filter((name) => fs.statSync(path.join(content, "blobs", name)).size > 20 << 20);
    const bytes = [`blobs/${base}`, "disk-0.qcow2"].map((name) => fs.statSync(path.join(content, name)).blocks * 512);
    assert.ok(bytes[0]! >= DATA.length && bytes[0]! + bytes[1]! < 30 << 20, bytes.join());
    assert.ok(allocated(path.join(GOLDEN, "content")) < 256 << 20, "holes of memory are holes");
  });

  test("vm clone refuses an export whose files are links, pipes or empty, even if its envelope matches", () => {
    const victim = path.join(SCRATCH, "victim.qcow2");
    execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", victim, "10G"]);
    type Envelope = {
      files: { name: string; size: number; sha256: string }[];
      entries: { name: string; kind: string; target_b64?: string }[];
    };
    const spoilt = (name: string, spoil: (file: string) => object | null): string => {
      const directory = path.join(SCRATCH, `hostile-${name}`);
      fs.cpSync(GOLDEN, directory, { recursive: true });
      const [file, envelope] = [path.join(directory, "content", name), path.join(directory, "snapshot.json")];
      const value = JSON.parse(fs.readFileSync(envelope, "utf8")) as Envelope;
      fs.rmSync(file);
      const entry = spoil(file);
      const listed = value.files.find((each) => each.name === `content/${name}`)!;
      if (entry === null) Object.assign(listed, { size: 0, sha256: createHash("sha256").digest("hex") });
      else {
        value.files.splice(value.files.indexOf(listed), 1);
        value.entries.push({ name: `content/${name}`, kind: "symlink", ...entry });
      }
      fs.writeFileSync(envelope, JSON.stringify(value));
      return directory;
    };
    const link = (file: string): object => {
      fs.symlinkSync(victim, file);
      return { target_b64: Buffer.from(victim).toString("base64") };
    };
    const pipe = (file: string): object => {
      execFileSync("mkfifo", [file]);
      return { kind: "fifo" };
    };
    const empty = (file: string): null => {
      fs.writeFileSync(file, "");
      return null;
    };
    for (const [name, spoil] of [
      ["disk-0.qcow2", link],
      ["memory", link],
      ["devices", pipe],
      ["memory", empty],
    ] as const) {
      const directory = spoilt(name, spoil);
      const error = refused(["clone", "--from", directory, "hostile"]);
      assert.equal(error.code, "damaged", error.message);
      assert.match(error.message, new RegExp(name));
      fs.rmSync(directory, { recursive: true });
    }
    const outside = path.join(SCRATCH, "outside");
    fs.mkdirSync(outside);
    fs.copyFileSync(path.join(GOLDEN, "snapshot.json"), path.join(outside, "snapshot.json"));
    fs.symlinkSync(path.join(GOLDEN, "content"), path.join(outside, "content"));
    assert.equal(refused(["clone", "--from", outside, "hostile"]).code, "damaged");
    assert.ok(!fs.existsSync(path.join(MACHINES, "hostile")));
  });

  test("vm create refuses an existing folder and invalid options", () => {
    const kernel = ["--kernel", (files as { kernel: string }).kernel];
    fs.mkdirSync(path.join(MACHINES, "documents"));
    fs.writeFileSync(path.join(MACHINES, "documents/thesis"), "years");
    assert.equal(refused(["create", "documents", ...kernel]).code, "already_exists");
    assert.equal(refused(["clone", "a", "documents"]).code, "already_exists");
    assert.equal(fs.readFileSync(path.join(MACHINES, "documents/thesis"), "utf8"), "years");
    execFileSync("mkfifo", [path.join(SCRATCH, "pipe")]);
    for (const odd of [path.join(SCRATCH, "pipe"), "/etc", "/nonexist"])
      assert.ok(["usage", "not_found"].includes(refused(["create", "wrong", "--kernel", odd]).code), odd);
    for (const wrong of [
      ["--memory", "1M"],
      ["--memory", "100000000"],
      ["--nic", "tap 0"],
      ["--disk", "0"],
    ])
      assert.equal(refused(["create", "wrong", ...kernel, ...wrong]).code, "usage", wrong.join());
    assert.equal(refused(["create", "../wrong", ...kernel]).code, "usage");
    vm("create", "odd", ...kernel, "--disk", "1000000");
    vm("save", "odd");
    vm("clone", "odd", "odd-2");
    for (const name of ["odd", "odd-2"]) vm("rm", name, "--delete-points");
  });

  test("a guest paused by vm save continues if QEMU answers late or the command is killed", async () => {
    const before = (await a.counted()).at(-1)!;
    const line = ["vm", "save", "a"];
    const gate = path.join(SCRATCH, "gate");
    fs.writeFileSync(gate, "");
    const child = spawn(process.execPath, [buildCommand(), ...line, "--json"], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, CAIRN_FAILPOINT: `vm-save.moving@${gate}` },
    });
    let said = "";
    child.stdout.on("data", (text) => (said += String(text)));
    const waits = once(child.stderr, "data");
    await waits;
    process.kill(a.pid()!, "SIGSTOP");
    fs.rmSync(gate);
    await once(child, "exit");
    assert.match(said, /did not answer/);
    process.kill(a.pid()!, "SIGCONT");
    await a.counted(2);
    assert.ok(a.counts().at(-1)!.count > before.count);
    // The same when the command is killed, and QEMU answers when nobody asks any more.
    fs.writeFileSync(gate, "");
    const killed = spawn(process.execPath, [buildCommand(), ...line], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, CAIRN_FAILPOINT: `vm-save.paused@${gate}` },
    });
    await once(killed.stderr, "data");
    process.kill(a.pid()!, "SIGSTOP");
    killed.kill("SIGKILL");
    await sleep(8000);
    process.kill(a.pid()!, "SIGCONT");
    await a.counted(2);
    vm("save", "a");
    assert.deepEqual(
      fs.readdirSync(path.join(a.folder, "live")).filter((name) => name.startsWith("stream")),
      [],
    );
  });

  test("a machine with a tap device is cloned with another tap, saved and restored", { skip: noTap() }, async () => {
    const taps = ["cairntest0", "cairntest1"];
    for (const tap of taps) execFileSync("ip", ["tuntap", "add", "dev", tap, "mode", "tap"]);
    try {
      const { kernel, initrd } = files as { kernel: string; initrd: string };
      const tapped = await boot("tapped", { kernel, initrd }, ["--nic", taps[0]!]);
      vm("save", "tapped");
      assert.equal(refused(["clone", "tapped", "tapped-2", "--nic", "user"]).code, "usage");
      assert.equal(refused(["clone", "tapped", "tapped-2"]).code, "usage", "its tap is in use");
      assert.equal(refused(["clone", "tapped", "tapped-2", "--nic", "cairnnone"]).code, "not_found");
      const { nics } = vm("clone", "tapped", "tapped-2", "--nic", taps[1]!) as { nics: { mac: string }[] };
      const second = new Guest("tapped-2");
      assert.notEqual(nics[0]!.mac, (await tapped.counted()).at(-1)!.mac);
      await second.hasAddress(nics[0]!.mac);
      vm("save", "tapped-2");
      const broken = path.join(SCRATCH, "broken-tap");
      vm("export", "tapped", "--to", broken);
      breakDevices(broken);
      assert.equal(refused(["restore", "tapped", "--from", broken]).code, "io");
      const { state, error } = vm("inspect", "tapped");
      assert.equal(state, "error", "a machine with a tap had ended by then");
      assert.match(String(error), /ended during a restore/);
      assert.equal(refused(["start", "tapped"]).code, "refused");
      for (const guest of [tapped, second]) {
        vm("restore", guest.name, "latest");
        await guest.counted();
        vm("rm", guest.name, "--force", "--delete-points");
      }
    } finally {
      for (const tap of taps) execFileSync("ip", ["tuntap", "del", "dev", tap, "mode", "tap"]);
    }
  });

  test("vm stop --force ends a machine whose QEMU does not answer", async () => {
    const { kernel, initrd } = files as { kernel: string; initrd: string };
    const deaf = await boot("deaf", { kernel, initrd });
    process.kill(deaf.pid()!, "SIGSTOP");
    assert.equal(vm("stop", "deaf", "--force")["state"], "stopped");
    vm("rm", "deaf");
  });

  test("vm stop --force ends a machine after a killed restore, and a start leaves no file that nothing needs", async (t) => {
    const machines = path.join(SCRATCH, "few");
    t.after(() => endMachines(machines));
    const run = vmIn(machines);
    run("clone", "--from", GOLDEN, "x");
    const machine = Machine.in(machines, "x");
    machine.restoring.begin({ generation: machine.read().generation, ran: true });
    run("stop", "x", "--force");
    assert.equal(run("inspect", "x")["state"], "stopped");
    run("start", "x");
    assert.deepEqual(await leftoversIn(machines), []);
  });

  test("a machine is stopped, started and saved while stopped, and vm rm requires --delete-points", async () => {
    vm(
      "create",
      "rest",
      "--kernel",
      (files as { kernel: string }).kernel,
      "--initrd",
      (files as { initrd: string }).initrd,
      "--append",
      "console=ttyS0",
      "--disk",
      "1M",
    );
    const rest = new Guest("rest");
    assert.equal(vm("inspect", "rest")["state"], "created");
    vm("start", "rest");
    assert.equal(refused(["start", "rest"]).code, "conflict");
    await rest.counted(2);
    const stopped = vm("stop", "rest");
    assert.deepEqual([stopped["state"], stopped["obeyed"]], ["stopped", false]);
    assert.equal(vm("save", "rest")["has_memory"], false);
    vm("clone", "rest", "rest-2");
    assert.equal(vm("inspect", "rest-2")["state"], "created");
    vm("start", "rest-2");
    const [first] = await new Guest("rest-2").counted();
    assert.notEqual(first!.disk, "none", "the disk came along");
    await new Guest("rest-2").type("poweroff -f");
    await eventually(
      "a guest that ends leaves its machine stopped",
      () => vm("inspect", "rest-2")["state"] === "stopped",
    );
    vm("rm", "rest-2");
    vm("start", "rest");
    assert.equal(vm("restore", "rest", "latest")["has_memory"], false);
    assert.equal(vm("inspect", "rest")["state"], "stopped");
    assert.equal(refused(["rm", "rest"]).code, "refused");
    vm("rm", "rest", "--delete-points");
    assert.equal(refused(["inspect", "rest"]).code, "not_found");
    assert.equal(refused(["rm", "a", "--delete-points"]).code, "refused", "it runs");
  });
});
