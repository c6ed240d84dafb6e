import { daemonPlaces } from "../../../daemon/places.ts";
import { installUnit, thisProgram, uninstallUnit, unitText } from "../../../daemon/unit.ts";
import type { CommandDefinition } from "../../command.ts";
import { printable } from "../../render/format.ts";

export const command: CommandDefinition = {
  name: "service install",
  options: [{ flags: "--print", text: "only print the unit" }],
  examples: [
    { line: "sudo cairn service install", text: "for all users of this machine" },
    { line: "cairn service install --print", text: "print the unit, to check or change it first" },
  ],
  async run(context, input) {
    const places = daemonPlaces();
    if (input.flag("print")) {
      const text = unitText(places, thisProgram());
      return { data: { unit: null, commands: [], started: false, text }, text: () => text };
    }
    const { unit, commands, started } = installUnit(places);
    const next = started ? "the daemon runs now, and starts at each boot" : `to start it: ${commands.join(" && ")}`;
    return {
      data: { unit, commands, started, text: null },
      text: () => `installed ${printable(unit)}\n  ${context.style.cyan(next)}`,
    };
  },
};

export const uninstall: CommandDefinition = {
  name: "service uninstall",
  examples: [
    { line: "sudo cairn service uninstall", text: "remove the unit; the state, the configuration and all points stay" },
  ],
  async run() {
    const places = daemonPlaces();
    const { unit, commands } = uninstallUnit(places);
    return {
      data: { unit, commands },
      text: () =>
        `removed ${printable(unit)}; all points stay, and so does the daemon's state in ${printable(places.state)}`,
    };
  },
};
