import { failpoint } from "../../failpoint.ts";
import { ownNics } from "./life.ts";
import type { Machine, MachineRecord } from "./machine.ts";
import { openForwards } from "./network.ts";
import { resume } from "./qemu.ts";
import type { Qmp } from "./qmp.ts";

/** Steps of a guest that goes on from a saved state. */

/** Lets a guest with a loaded state run, and gives it its own network devices. */
export async function goOn(
  machine: Machine,
  record: MachineRecord,
  loaded: Qmp | null,
  { onWarning }: { onWarning?: ((message: string) => void) | undefined },
): Promise<void> {
  if (loaded === null) return;
  using qmp = loaded;
  failpoint("vm-go-on.waits");
  await resume(qmp);
  failpoint("vm-go-on.runs");
  const opened = await openForwards(qmp, machine, record).catch((error: unknown) => {
    onWarning?.((error as Error).message);
    return record;
  });
  if (opened !== record) machine.write(opened);
  qmp.close();
  if (!record.foreignNics || !(await ownNics(machine, opened)).foreignNics) return;
  onWarning?.(
    `the guest of ${machine.name} does not release its network devices, which keep their old addresses and have no link: reboot it with cairn vm stop and start`,
  );
}
