import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { buildCommand, cairn, SCRATCH } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { bootedBy, endMachines, findGuest, Guest, MACHINES, vm, vmIn } from "../fixtures/guest.ts";
import { freePorts } from "../fixtures/s3-server.ts";
import { startSshServer } from "../fixtures/ssh-server.ts";

/** The way into a machine: user data, keys, forwards and SSH, in a machine and in its clones. */

const files = findGuest("service");
const lacking = (...programs: string[]): string | undefined =>
  programs.find((program) => spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0);
const missing = lacking("ssh", "xorriso");
const skip = "reason" in files ? files.reason : missing !== undefined && `${missing} is not installed`;
const KEY = path.join(SCRATCH, "key");

interface Info {
  nics: { internet: boolean; forwards: { host: number; guest: number }[] }[];
}
const portOf = (name: string): number => (vm("inspect", name) as unknown as Info).nics[0]!.forwards[0]!.host;
/** Words after the dashes belong to the guest's command, so `--json` stands before them. */
function inside(name: string, ...command: string[]): { status: number | null; said: string } {
  const line = [buildCommand(), "vm", "ssh", "--json", name, "--", ...command];
  const { status, stdout } = spawnSync(process.execPath, line, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  return { status, said: stdout };
}

suite("the way into a machine", { skip }, () => {
  let port: number;
  before(async () => {
    if ("reason" in files) return;
    [port] = (await freePorts(1)) as [number];
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", KEY]);
    const userData = path.join(SCRATCH, "user-data");
    fs.writeFileSync(userData, "#!/bin/sh\necho marker of the user data >/dev/console\n");
    const access = ["--ssh-key", KEY, "--user-data", userData, "--forward", `${port}:22`];
    vm("run", "web", ...bootedBy(files), "--disk", "10M", ...access);
    assert.equal(inside("web", "true").status, 0);
    vm("save", "web");
  });
  after(() => endMachines());

  test("the guest runs its user data, and vm ssh runs a command in it", () => {
    assert.match(new Guest("web").said(), /marker of the user data/);
    assert.equal(portOf("web"), port);
    assert.equal(inside("web", "exit", "3").status, 3);
    assert.equal(fs.statSync(path.join(MACHINES, "web/seed.iso")).size, 1 << 20);
  });

  test("a clone has a free port that is recorded, a known_hosts file and a seed disk of its own", () => {
    vm("clone", "web", "web-2");
    const own = portOf("web-2");
    assert.ok(own > 0 && own !== port, String(own));
    assert.equal(inside("web-2", "true").status, 0);
    assert.equal(inside("web", "true").status, 0, "the source keeps its port");
    const hosts = (name: string) => fs.readFileSync(path.join(MACHINES, name, "known_hosts"), "utf8").split(" ")[0];
    assert.deepEqual([hosts("web"), hosts("web-2")], ["web", "web-2"]);
    const seeds = ["web", "web-2"].map((name) => fs.readFileSync(path.join(MACHINES, name, "seed.iso")));
    assert.ok(!seeds[0]!.equals(seeds[1]!));
    vm("restore", "web", "latest");
    assert.ok(!fs.existsSync(path.join(MACHINES, "web/known_hosts")), "the state may have other host keys");
    assert.equal(inside("web", "true").status, 0, "a restored machine has its port again");
  });

  test("vm ssh refuses a port that another program has", async () => {
    if ("reason" in files) return;
    vm("run", "robbed", ...bootedBy(files), "--forward", "22");
    const server = net.createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const taken = (server.address() as net.AddressInfo).port;
    const record = path.join(MACHINES, "robbed/machine.json");
    const text = fs.readFileSync(record, "utf8");
    assert.match(text, /"free": true/);
    const changed = text
      .replace(`"host": ${portOf("robbed")}`, `"host": ${taken}`)
      .replace('"free": true', '"free": false');
    fs.writeFileSync(record, changed);
    assert.match(inside("robbed", "true").said, /another program has port/);
    server.close();
    vm("rm", "robbed", "--force");
  });

  test("a guest reaches services of this host only with --internet, and forwards listen only on 127.0.0.1", async () => {
    // A process of its own: this one waits for its commands.
    const program =
      "const s=require('net').createServer(c=>c.end('hello\\n')).listen(0,'127.0.0.1',()=>console.log(s.address().port))";
    const server = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] });
    const [text] = (await once(server.stdout, "data")) as [Buffer];
    const asks = (name: string) => inside(name, `nc -w 5 10.0.2.2 ${Number(text)} </dev/null | grep hello`);
    try {
      vm("clone", "web", "open", "--internet");
      assert.equal(asks("open").status, 0);
      assert.notEqual(asks("web").status, 0);
    } finally {
      server.kill();
    }
    const listening = execFileSync("sh", ["-c", "cat /proc/net/tcp /proc/net/tcp6"], { encoding: "utf8" });
    const hex = port.toString(16).toUpperCase().padStart(4, "0");
    const rows = listening.split("\n").filter((row) => row.includes(`:${hex} `) && / 0A /.test(row));
    assert.equal(rows.length, 1);
    assert.match(rows[0]!, new RegExp(` 0100007F:${hex} `));
  });

  test("a machine boots from the disc in its CD drive, which is part of its saved states", async () => {
    const [tree, disc] = [path.join(SCRATCH, "disc"), path.join(SCRATCH, "disc.iso")];
    fs.mkdirSync(tree);
    // Writes the text behind it to the first serial port, and halts.
    const code = Buffer.from("e800005e0e1f83c614baf803ac84c07403eeebf8f4ebfd", "hex");
    fs.writeFileSync(path.join(tree, "boot"), Buffer.concat([code, Buffer.from("booted from the disc\n\0")]));
    const form = ["-as", "mkisofs", "-quiet", "-b", "boot", "-no-emul-boot", "-boot-load-size", "4"];
    execFileSync("xorriso", [...form, "-o", disc, tree], { stdio: "ignore" });
    const digest = execFileSync("sha256sum", [disc], { encoding: "utf8" }).slice(0, 64);
    vm("run", "disc", "--cdrom", disc, "--disk", "10M");
    await eventually("it boots from the disc", () => new Guest("disc").said().includes("booted from the disc"));
    fs.rmSync(disc);
    vm("save", "disc");
    const { state, cdrom } = vm("clone", "disc", "disc-2");
    assert.deepEqual([state, cdrom], ["running", digest]);
    const { error } = cairn(["vm", "set", "disc", "--eject"]);
    assert.equal(error?.code, "conflict", "it runs");
    vm("stop", "disc", "--force");
    assert.equal(vm("set", "disc", "--eject")["cdrom"], null);
    vm("start", "disc");
    assert.equal(vm("restore", "disc", "latest")["cdrom"], digest);
    assert.equal(cairn(["vm", "create", "wrong", "--cdrom", KEY]).error?.code, "usage");
    for (const name of ["disc", "disc-2"]) vm("rm", name, "--force", "--delete-points");
    const blob = path.join(MACHINES, ".shared/blobs", digest);
    assert.ok(!fs.existsSync(blob), "no machine needs it");
  });

  test("vm start refuses a forward whose port is in use, and vm ssh a machine without a forward", async () => {
    if ("reason" in files) return;
    const server = net.createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const taken = (server.address() as net.AddressInfo).port;
    vm("create", "second", ...bootedBy(files), "--forward", `${taken}:22`);
    const { error } = cairn(["vm", "start", "second"]);
    server.close();
    assert.deepEqual([error?.code, vm("inspect", "second")["pid"]], ["conflict", null]);
    vm("start", "second");
    vm("run", "closed", ...bootedBy(files));
    assert.match(inside("closed", "true").said, /"code":\s*"not_found"/);
    for (const wrong of ["22:", "a:22", "70000:22", "22:0"])
      assert.equal(cairn(["vm", "create", "wrong", ...bootedBy(files), "--forward", wrong]).error?.code, "usage");
  });
});

const unsent = lacking("ssh", "xorriso", "qemu-img", "qemu-system-x86_64");

test(
  "a stopped machine travels through ssh, and an import whose ssh is killed midway makes none",
  { skip: unsent !== undefined && `${unsent} is not installed` },
  async (t) => {
    const server = await startSshServer();
    if ("reason" in server) return t.skip(server.reason);
    t.after(async () => server.close());
    const image = path.join(SCRATCH, "image");
    fs.writeFileSync(image, randomBytes(8 << 20));
    vm("create", "sent", "--image", image);
    vm("save", "sent");
    const [there, state] = [path.join(SCRATCH, "there"), path.join(SCRATCH, "state-there")];
    const command = `'${process.execPath}' '${buildCommand()}' vm`;
    const env = `XDG_STATE_HOME='${state}' CAIRN_MACHINES='${there}' CAIRN_SOCKET=none`;
    const importing = (name: string): string =>
      `exec ${server.command()} -p ${server.port} ${server.user}@127.0.0.1 "${env} ${command} import - --name ${name}"`;
    const tar = path.join(SCRATCH, "sent.tar");
    const line = `${command} export sent -o - | tee '${tar}' | (${importing("sent")})`;
    const piped = spawnSync("sh", ["-c", line], { encoding: "utf8" });
    assert.equal(piped.status, 0, piped.stderr);
    const { state: arrived, disks } = vmIn(there)("inspect", "sent") as { state: string; disks: { base: string }[] };
    assert.equal(arrived, "created");
    const blob = (folder: string): Buffer => fs.readFileSync(path.join(folder, ".shared/blobs", disks[0]!.base));
    assert.ok(blob(there).equals(blob(MACHINES)));

    const staged = (): string[] => fs.readdirSync(there).filter((name) => name.startsWith(".cairn-tmp-"));
    const client = spawn("sh", ["-c", importing("cut")], { stdio: ["pipe", "ignore", "ignore"] });
    client.stdin.on("error", () => undefined);
    const bytes = fs.readFileSync(tar);
    client.stdin.write(bytes.subarray(0, bytes.length / 2));
    const taken = (): number =>
      Number(execFileSync("du", ["-sk", path.join(there, staged()[0]!)], { encoding: "utf8" }).split("\t")[0]);
    await eventually("half of the machine arrives", () => staged().length === 1 && taken() > 2 << 10);
    client.kill("SIGKILL");
    await eventually("the import ends", () => staged().length === 0);
    const { machines } = vmIn(there)("list") as { machines: { name: string }[] };
    assert.deepEqual(
      machines.map(({ name }) => name),
      ["sent"],
    );
  },
);
