import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { MachineInfo } from "../../../contract/machines.ts";
import { CairnError, throwIfAborted } from "../../../errors.ts";
import { findProgram } from "../../../fs/child-pipes.ts";
import { listensAt } from "../../../fs/linux/holders.ts";
import type { CommandDefinition } from "../../command.ts";
import { NAME, onMachine } from "./place.ts";

const SSH_PORT = 22;
/** Time in which a guest boots, also under software emulation. */
const BOOT_MS = 300_000;
const BUSY_HOST_MS = 20_000;
const PAUSE_MS = 200;

export const command: CommandDefinition = {
  name: "vm ssh",
  answers: true,
  arguments: [NAME, { name: "[command...]", text: "a command for the guest, after `--`; default: a shell" }],
  options: [{ flags: "--user <name>", text: "user to log in as; default root" }],
  examples: [
    { line: "cairn vm ssh web", text: "wait until the guest answers, and log in" },
    { line: "cairn vm ssh web -- uname -a", text: "run one command; the exit status is the command's" },
  ],
  async run(context, input) {
    const info = await onMachine(context, input, "inspectMachine");
    const port = sshPort(info);
    await untilAnswered(port, info.name, context.signal);
    const program = findProgram("ssh");
    if (program === null)
      throw new CairnError("not_found", "ssh is not installed", { hint: "apt-get install openssh-client" });
    const args = [...argumentsOf(info, port, input.text("user") ?? "root"), ...input.rest(1)];
    // With --json stdout has only the JSON object.
    const child = spawn(program, args, { stdio: ["inherit", context.globals.json ? 2 : "inherit", "inherit"] });
    context.setCommandRunning(child.pid ?? null);
    try {
      const [status, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
      const exit = status ?? 128 + constants.signals[signal!];
      return { data: { name: info.name, port, exit_code: exit }, exitStatus: exit };
    } finally {
      context.setCommandRunning(null);
    }
  },
};

/** Returns the port of the host that leads to the guest's SSH server. */
function sshPort({ name, pid, nics }: MachineInfo): number {
  if (pid === null)
    throw new CairnError("conflict", `the machine ${name} is not running`, { hint: `cairn vm start ${name}` });
  const host = nics.flatMap(({ forwards }) => forwards).find(({ guest }) => guest === SSH_PORT)?.host ?? 0;
  if (host !== 0 && listensAt(pid, host) === false)
    throw new CairnError("conflict", `another program has port ${host} of this host, so it does not lead to ${name}`, {
      hint: "end that program, then try again: the port is opened first",
    });
  if (host !== 0) return host;
  throw new CairnError("not_found", `${name} has no forward to its port ${SSH_PORT}`, {
    hint: "create the machine with --forward 2222:22",
  });
}

function argumentsOf({ name, known_hosts: hosts, ssh_keys: keys }: MachineInfo, port: number, user: string): string[] {
  // ssh divides the file's name at spaces.
  const own = [
    `UserKnownHostsFile="${hosts}"`,
    "GlobalKnownHostsFile=none",
    "StrictHostKeyChecking=accept-new",
    "HashKnownHosts=no",
  ];
  const options = [...own, `HostKeyAlias=${name}`].flatMap((each) => ["-o", each]);
  const files = keys.flatMap((file) => ["-i", file.replace(/\.pub$/, "")]);
  return [...options, ...files, "-p", String(port), "-l", user, "127.0.0.1", "--"];
}

/** Waits until an SSH server speaks at a port. QEMU accepts a connection before the guest does. */
async function untilAnswered(port: number, name: string, signal: AbortSignal): Promise<void> {
  const end = performance.now() + BOOT_MS;
  while (!(await speaks(port))) {
    throwIfAborted(signal);
    if (performance.now() > end)
      throw new CairnError("io", `no SSH server in ${name} answered within ${BOOT_MS / 1000} s`, {
        hint: `look at its console: cairn vm console ${name}`,
      });
    await sleep(PAUSE_MS);
  }
}

async function speaks(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = net.connect(port, "127.0.0.1");
  socket.setTimeout(BUSY_HOST_MS, () => resolve(false));
  socket.once("data", (bytes) => resolve(bytes.toString("latin1").startsWith("SSH-")));
  socket.once("error", () => resolve(false)).once("close", () => resolve(false));
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}
