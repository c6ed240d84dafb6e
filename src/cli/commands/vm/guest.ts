import { once } from "node:events";
import { statSync } from "node:fs";
import { basename, join } from "node:path";
import { atPort, getFile, putFile, runIn } from "../../../capture/vm/guest-work.ts";
import { isMachineName } from "../../../formats/machine/machine.ts";
import type { CommandDefinition } from "../../command.ts";
import { usage } from "../../input.ts";
import { formatBytes, printable } from "../../render/format.ts";
import { machinesOf, NAME } from "./place.ts";

/** Commands and copies of files in a guest, through its serial port: no network and no key is needed. */

export const exec: CommandDefinition = {
  name: "vm exec",
  answers: true,
  arguments: [
    NAME,
    { name: "<command...>", text: "a command for the guest, which runs as root; after `--` if it has options" },
  ],
  examples: [
    { line: "cairn vm exec web -- uname -a", text: "run one command; the exit status is the command's" },
    { line: "cairn vm exec web -- sh -c 'cat >/etc/motd' <motd", text: "the command has the standard input" },
  ],
  async run(context, input) {
    const name = input.required(0);
    const argv = input.rest(1);
    if (argv.length === 0 || argv[0] === "") throw usage("a command is needed, e.g. `cairn vm exec web -- uname -a`");
    // With --json stdout has only the JSON object.
    const out = context.globals.json ? process.stderr : process.stdout;
    const { signal } = context;
    const write = async (bytes: Buffer, to: "out" | "err"): Promise<void> => {
      const stream = to === "out" ? out : process.stderr;
      if (!stream.write(bytes)) await once(stream, "drain", { signal });
    };
    try {
      const status = await atPort(machinesOf(context), name, "exec", context.callOptions(), async (place) =>
        runIn(place, argv, { input: stdinOf(), write, signal }),
      );
      return { data: { name, exit_code: status }, text: () => "", exitStatus: status };
    } finally {
      // The command may have ended before its input.
      process.stdin.destroy();
    }
  },
};

/** The standard input; its end also if it was closed. */
async function* stdinOf(): AsyncGenerator<Uint8Array> {
  if (process.stdin.destroyed) return;
  try {
    yield* process.stdin as AsyncIterable<Uint8Array>;
  } catch (error) {
    if (!process.stdin.destroyed) throw error;
  }
}

const PLACE = /^([^/:]+):(.+)$/s;

export const cp: CommandDefinition = {
  name: "vm cp",
  arguments: [
    { name: "<from>", text: "a file, or NAME:PATH in a guest" },
    { name: "<to>", text: "NAME:PATH in a guest, or a file or folder; an existing file is replaced" },
  ],
  examples: [
    { line: "cairn vm cp app.conf web:/etc/app.conf", text: "copy a file into a guest" },
    { line: "cairn vm cp web:/var/log/syslog syslog", text: "copy a file from a guest" },
  ],
  async run(context, input) {
    const [from, to] = [input.required(0), input.required(1)];
    const [fromGuest, toGuest] = [inGuest(from), inGuest(to)];
    const guest = fromGuest ?? toGuest;
    if (guest === null || (fromGuest !== null && toGuest !== null))
      throw usage(
        "one of both is a file in a guest, NAME:PATH with an absolute path; a file with a colon here is ./FILE",
      );
    const { name, path } = guest;
    const { signal } = context;
    const given = context.absolute(toGuest === null ? to : from);
    const isInto = toGuest === null && statSync(given, { throwIfNoEntry: false })?.isDirectory() === true;
    const file = isInto ? join(given, basename(path)) : given;
    const { bytes, sha256 } = await atPort(machinesOf(context), name, "cp", context.callOptions(), async (place) =>
      toGuest === null ? getFile(place, path, file, signal) : putFile(place, file, path, signal),
    );
    return {
      data: { name, path, file, bytes, sha256 },
      text: () => `${context.style.green("copied")} ${printable(from)} to ${printable(to)}: ${formatBytes(bytes)}`,
    };
  },
};

/** A file in a guest; null for a file of this host. */
function inGuest(text: string): { name: string; path: string } | null {
  const [, name = "", path = ""] = PLACE.exec(text) ?? [];
  return isMachineName(name) && path.startsWith("/") ? { name, path } : null;
}
