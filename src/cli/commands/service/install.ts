import { daemonPlaces, decidingVariables } from "../../../daemon/places.ts";
import {
  installTimer,
  installUnit,
  ownScope,
  thisProgram,
  timerTexts,
  uninstallUnit,
  unitText,
} from "../../../daemon/unit.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { printable, shellQuote } from "../../render/format.ts";

const NOTHING = { unit: null, commands: [], started: false };

export const command: CommandDefinition = {
  name: "service install",
  options: [
    { flags: "--timer", text: "install a timer instead, which runs `cairn due` every ten minutes" },
    { flags: "--print", text: "only print the unit" },
  ],
  examples: [
    { line: "sudo cairn service install", text: "for all users of this machine" },
    {
      line: "cairn service install --timer",
      text: "save your folders each hour, back them up each day, and remove snapshots by the folders' rules",
    },
    { line: "cairn service install --print", text: "print the unit, to check or change it first" },
  ],
  async run(context, input) {
    const isTimer = input.flag("timer");
    if (input.flag("print")) {
      const text = isTimer
        ? timerTexts(ownScope(), thisProgram(), context.env)
            .map(([name, unit]) => `# ${name}\n${unit}`)
            .join("\n")
        : unitText(daemonPlaces(), thisProgram());
      return { data: { ...NOTHING, text }, text: () => text };
    }
    const installed = isTimer ? installTimer(ownScope()) : installUnit(daemonPlaces());
    if (installed === null) return forCron(context);
    const { unit, commands, started } = installed;
    const now = isTimer
      ? "your folders are saved each hour from now on"
      : "the daemon runs now, and starts at each boot";
    const next = started ? now : `to start it: ${commands.join(" && ")}`;
    return {
      data: { unit, commands, started, text: null },
      text: () => `installed ${printable(unit)}\n  ${context.style.cyan(next)}`,
    };
  },
};

/** Returns the line of a crontab that saves and backs up as the timer does. */
function forCron({ env, style }: Context): Outcome {
  const variables = Object.entries(decidingVariables(env)).map(([name, value]) => `${name}=${shellQuote(value)}`);
  const words = [...variables, ...thisProgram().map(shellQuote), "due -q"].join(" ");
  // In a crontab an unescaped % ends the command.
  const text = `*/10 * * * *  ${words.replaceAll("%", "\\%")}`;
  return {
    data: { ...NOTHING, text },
    text: () => `nothing was installed: you cannot reach systemd here. A line for \`crontab -e\`:\n${style.cyan(text)}`,
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
