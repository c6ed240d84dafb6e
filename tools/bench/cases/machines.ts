import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { randomBytes } from "node:crypto";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Qmp } from "../../../src/capture/vm/qmp.ts";
import type { CairnLibrary } from "../../../src/contract/index.ts";
import { allocated, findGuest } from "../../../test/fixtures/guest.ts";
import type { Bench, OwnCase } from "../bench.ts";
import { limitBar, median, ratioBars, type Result } from "../result.ts";

const MEMORY = 256 << 20;
const DISK = 10 * 2 ** 30;
const DATA = 25 << 20;

/** A machine with a real guest: the pause of a save beside QEMU's own snapshot, clones of one directory, bytes of an export. */
export const machines: OwnCase = {
  name: "machines",
  data: null,
  async run(bench: Bench): Promise<Result> {
    const guest = findGuest();
    if ("reason" in guest) throw new Error(guest.reason);
    const folder = bench.folder("machines");
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    const [root, golden] = [path.join(folder, "root"), path.join(folder, "golden")];
    process.env["XDG_STATE_HOME"] = path.join(folder, "state");
    const library = (await import(path.resolve(import.meta.dirname, "../../../dist/index.js"))) as CairnLibrary;
    const image = path.join(folder, "image");
    makeImage(image);
    const made = { ...guest, append: "console=ttyS0 loglevel=6 panic=-1", memory: MEMORY, image, disks: [DISK] };
    const source = await library.createMachine(root, "source", { ...made, start: true });
    await says(source.console_log, /count 3/);
    const samples: Record<string, number[]> = {};
    const note = (name: string, ms: number): number => ((samples[name] ??= []).push(ms), ms);
    try {
      for (let round = 0; round < bench.repeats; round++) {
        note("cairn", (await library.saveMachine(root, "source")).paused_ms);
        note("QEMU savevm", await snapshot((await library.inspectMachine(root, "source")).pid!));
      }
      await library.exportMachine(root, "source", golden);
      await library.stopMachine(root, "source", { force: true });
      // Files that were changed just now are read again by each.
      await sleep(2500);
      for (let round = 0; round <= bench.repeats; round++) {
        const name = `clone-${round}`;
        const start = performance.now();
        const log = path.join(root, name, "live/console.log");
        const first = says(log, /./).then(() => performance.now() - start);
        const { ready_ms: ready } = await library.cloneMachine(root, name, { fromDirectory: golden });
        note(round === 0 ? "first clone, ready" : "clone, ready", ready);
        note(round === 0 ? "first clone, output" : "clone, output", await first);
        await library.stopMachine(root, name, { force: true });
      }
      const content = path.join(golden, "content");
      const disks = allocated(content) - statSync(path.join(content, "memory")).blocks * 512;
      return {
        case: "machines",
        unit: "ms",
        samples,
        bars: [
          limitBar("pause of a save", median(samples["cairn"]!), 150, "ms"),
          ...ratioBars(samples, { "QEMU savevm": 1 }),
          limitBar("clone until it could run", median(samples["clone, ready"]!), 100, "ms"),
          limitBar("clone until its first output", median(samples["clone, output"]!), 600, "ms"),
          // The kernel and its initramfs are 10 MB of it.
          limitBar("bytes of an export but memory", disks, (30 << 20) + statSync(guest.kernel).size, "bytes"),
        ],
        meaning: `A machine of 256 MiB, with 25 MiB on a disk of 10 GiB, in ${source.accelerator === "kvm" ? "KVM" : "software emulation"}; calls of the library.`,
        notes: ["the first clone of a directory reads all of it; later ones know its files"],
      };
    } finally {
      for (const { name } of (await library.listMachines(root)).machines)
        await library.removeMachine(root, name, { force: true, deletePoints: true });
    }
  },
};

function makeImage(file: string): void {
  const fd = openSync(file, "w");
  ftruncateSync(fd, DISK);
  writeSync(fd, randomBytes(DATA), 0, DATA, 1 << 20);
  closeSync(fd);
}

async function says(log: string, what: RegExp): Promise<void> {
  while (!existsSync(log) || !what.test(readFileSync(log, "latin1"))) await sleep(1);
}

/** Returns the milliseconds for which QEMU's own snapshot, into the disk's image, stops the guest. */
async function snapshot(pid: number): Promise<number> {
  using qmp = await Qmp.connect(`/proc/${pid}/cwd/qmp.sock`, { deadlineMs: 5000 });
  // It is to save memory too.
  await qmp.run("migrate-set-capabilities", { capabilities: [{ capability: "x-ignore-shared", state: false }] });
  const start = performance.now();
  const said = await qmp.run("human-monitor-command", { "command-line": "savevm bench" }, 60_000);
  if (said !== "") throw new Error(`savevm: ${String(said)}`);
  const ms = performance.now() - start;
  await qmp.run("human-monitor-command", { "command-line": "delvm bench" }, 60_000);
  return ms;
}
