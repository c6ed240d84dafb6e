import { spawnSync } from "node:child_process";
import type { KeptRepository } from "../../../contract/index.ts";
import { daemonPlaces, decidingVariables } from "../../../daemon/places.ts";
import {
  cronProblems,
  installTimer,
  installUnit,
  ownScope,
  thisProgram,
  timerTexts,
  tryKept,
  tryLater,
  uninstallUnit,
  unitText,
} from "../../../daemon/unit.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import { canAsk, usage } from "../../input.ts";
import { printable, shellQuote } from "../../render/format.ts";

const NOTHING = { unit: null, commands: [], started: false };

export const command: CommandDefinition = {
  name: "service install",
  options: [
    { flags: "--timer", text: "install a timer instead, which runs `cairn due` every ten minutes" },
    { flags: "--plan", text: "only print the unit" },
  ],
  examples: [
    { line: "sudo cairn service install", text: "for all users of this machine" },
    {
      line: "cairn service install --timer",
      text: "save your folders each hour, back them up each day, and remove snapshots by the folders' rules",
    },
    { line: "cairn service install --plan", text: "print the unit, to check or change it first" },
  ],
  async run(context, input) {
    const isTimer = input.flag("timer");
    if (input.flag("plan")) {
      const text = isTimer
        ? timerTexts(ownScope(), thisProgram(), context.env)
            .map(([name, unit]) => `# ${name}\n${unit}`)
            .join("\n")
        : unitText(daemonPlaces(), thisProgram());
      return { data: { ...NOTHING, text }, text: () => text };
    }
    const folders = isTimer ? await backedUpFolders(context) : [];
    const installed = isTimer ? installTimer(ownScope()) : installUnit(daemonPlaces());
    // systemd has started the daemon, and waited until it serves.
    const isReady = isTimer || installed !== null || isWell("the daemon", await tryDaemon(context), context);
    let isDone = installed !== null && isReady;
    for (const folder of folders)
      isDone = isWell(`backups of ${folder}`, await tryKept(folder, context), context) && isDone;
    const exitStatus = isDone ? 0 : EXIT_PARTLY;
    for (const each of installed === null ? (cronProblems() ?? []) : []) context.note(each);
    if (installed === null) return { ...forCron(context, isTimer), exitStatus };
    const { unit, commands, started } = installed;
    const now = isTimer
      ? "your folders are saved each hour from now on"
      : "the daemon runs now, and starts at each boot";
    return {
      exitStatus,
      data: { unit, commands, started, text: null },
      text: () => `installed ${printable(unit)}\n  ${context.style.cyan(now)}`,
    };
  },
};

async function tryDaemon(context: Context): Promise<string | null> {
  const { XDG_RUNTIME_DIR } = context.env;
  return tryLater(["daemon", "--check"], context, XDG_RUNTIME_DIR === undefined ? {} : { XDG_RUNTIME_DIR });
}

function isWell(what: string, why: string | null, context: Context): boolean {
  if (why !== null) context.note(`${what} will fail without a terminal and its variables: ${why}`);
  return why === null;
}

/**
 * Returns the folders that the timer backs up. If the password of a folder is not kept, asks for it on a terminal by starting
 * `backup use`, and otherwise throws `usage`.
 */
async function backedUpFolders(context: Context): Promise<string[]> {
  const library = await context.library();
  const read = async (path: string): Promise<KeptRepository | null> => {
    await using client = await library.open(path, context.openOptions());
    return await client.backupRepository(context.callOptions());
  };
  const folders: string[] = [];
  for (const { path } of await library.listWorkspaces(context.callOptions())) {
    // Each run of the timer names a folder that cannot be opened.
    let kept = await read(path).catch(() => null);
    if (kept === null) continue;
    if (!hasPassword(kept) && canAsk() && !context.globals.json) {
      const [program, ...words] = [...thisProgram(), "backup", "use", path, "-r", kept.repository];
      spawnSync(program!, words, { stdio: "inherit" });
      kept = (await read(path)) ?? kept;
    }
    if (!hasPassword(kept))
      throw usage(
        `the timer could not back up ${printable(path)}: no password of ${printable(kept.repository)} is kept`,
        `keep one: cairn backup use ${shellQuote(path)} --password-file FILE`,
      );
    folders.push(path);
  }
  return folders;
}

function hasPassword({ password_file: file, password_command: command }: KeptRepository): boolean {
  return file !== null || command !== null;
}

/** Returns the line of a crontab in place of a unit: it starts the daemon at boot, or makes the due runs every ten minutes. */
function forCron({ env, style }: Context, isTimer: boolean): Outcome {
  const variables = Object.entries(decidingVariables(env)).map(([name, value]) => `${name}=${shellQuote(value)}`);
  const words = [...variables, ...thisProgram().map(shellQuote), isTimer ? "due -q" : "daemon"].join(" ");
  // In a crontab an unescaped % ends the command.
  const text = `${isTimer ? "*/10 * * * *" : "@reboot"}  ${words.replaceAll("%", "\\%")}`;
  const what = isTimer ? "your folders are not saved by the clock" : "no daemon was started";
  return {
    data: { ...NOTHING, text },
    text: () =>
      `nothing was installed, and ${what}: you cannot reach systemd here. A line for \`crontab -e\`:\n${style.cyan(text)}`,
  };
}

export const uninstall: CommandDefinition = {
  name: "service uninstall",
  examples: [
    { line: "sudo cairn service uninstall", text: "remove the unit; the state, the configuration and all points stay" },
  ],
  async run() {
    const places = daemonPlaces();
    const { what, unit, commands } = uninstallUnit(places);
    const state = what === "timer" ? "" : `, and so does the daemon's state in ${printable(places.state)}`;
    return { data: { unit, commands }, text: () => `removed ${printable(unit)}; all points stay${state}` };
  },
};
