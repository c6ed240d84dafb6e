import { setTimeout as sleep } from "node:timers/promises";
import { withMachine } from "./life.ts";
import { Machine, processIn } from "./machine.ts";
import { resume, runningIn } from "./qemu.ts";

/** Waits until a command has done its work on a machine. Where it was killed over it, the machine is settled: its guest runs again. */

const LONGEST_MS = 600_000;
const [root, name] = process.argv.slice(2) as [string, string];

process.once("message", () => process.exit());
process.once("disconnect", () => void settle());
if (!process.connected) void settle();

/** Tries until it is done, or there is nobody whose guest could wait: a QEMU whose disk is slow does not answer at first. */
async function settle(): Promise<void> {
  const end = Date.now() + LONGEST_MS;
  do {
    try {
      await withMachine(root, name, "settle", { lockTimeoutMs: 30_000 }, async (machine) => {
        using qmp = await runningIn(machine.live);
        if (qmp !== null) await resume(qmp);
      });
      break;
    } catch {
      // Whoever looks at it later settles it too, or is told why not.
      await sleep(1000);
    }
  } while (Date.now() < end && processIn(Machine.in(root, name).live) !== null);
  process.exit();
}
