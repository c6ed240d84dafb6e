import {
  CreateMachineOptions,
  type MachineInfo,
  RemoveMachineOptions,
  SetMachineOptions,
  StopMachineOptions,
} from "../../../contract/machines.ts";
import { omit, pick } from "../../../contract/schema.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { plural, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import { hardwareOf, machinesOf, NAME, NEW_NAME, onMachine, shownState, withNewName } from "./place.ts";

const MADE = new VerbOptions(omit(CreateMachineOptions, "start", "description", "cpu", "image"));

function made(name: string, isStarted: boolean, line: string, text: string): CommandDefinition {
  return {
    name,
    harmless: true,
    arguments: [NEW_NAME],
    options: MADE.definitions,
    examples: [{ line, text }],
    async run(context, input) {
      const options = { ...context.callOptions(), ...MADE.read(context, input), start: isStarted };
      const [library, root] = [await context.library(), machinesOf(context)];
      const info = await withNewName(root, input.argument(0), async (name) =>
        library.createMachine(root, name, options),
      );
      return said(context, info, isStarted ? "created and booted" : "made");
    },
  };
}

export const create = made(
  "vm create",
  false,
  "cairn vm create web --image debian.qcow2 --memory 1G",
  "create without booting",
);
export const run = made(
  "vm run",
  true,
  'cairn vm run tiny --kernel vmlinuz --initrd initrd.gz --append "console=ttyS0"',
  "boot a kernel without a disk",
);

function said(context: Context, info: MachineInfo, done: string): Outcome {
  return {
    data: info,
    text: () =>
      `${context.style.green(done)} ${printable(info.name)}: ${hardwareOf(info)}${info.error === null ? "" : `\n  ${printable(info.error)}`}`,
  };
}

export const start: CommandDefinition = {
  name: "vm start",
  arguments: [NAME],
  examples: [{ line: "cairn vm start web", text: "boot it; a hibernated guest continues from its save" }],
  async run(context, input) {
    const info = await onMachine(context, input, "startMachine");
    return said(context, info, "started");
  },
};

const SET = new VerbOptions(SetMachineOptions.entries);
export const set: CommandDefinition = {
  name: "vm set",
  arguments: [NAME],
  options: SET.definitions,
  examples: [{ line: "cairn vm set web --memory 2G --disk-size 20G", text: "change a stopped machine" }],
  async run(context, input) {
    const info = await onMachine(context, input, "setMachine", SET.read(context, input));
    return said(context, info, "changed");
  },
};

const STOPPED = new VerbOptions(pick(StopMachineOptions, "force"));
export const stop: CommandDefinition = {
  name: "vm stop",
  arguments: [NAME],
  options: STOPPED.definitions,
  examples: [{ line: "cairn vm stop web --force", text: "power off at once, without a shutdown" }],
  async run(context, input) {
    const info = await onMachine(context, input, "stopMachine", STOPPED.read(context, input));
    const stays = info.state === "hibernated" ? "is hibernated" : info.error === null ? null : "was stopped already";
    const done = info.obeyed || input.flag("force") ? "stopped" : "powered off (the guest did not shut down)";
    return said(context, info, stays ?? done);
  },
};

export const list: CommandDefinition = {
  name: "vm list",
  harmless: true,
  examples: [{ line: "cairn vm list", text: "list the machines with their states" }],
  async run(context) {
    const library = await context.library();
    const result = await library.listMachines(machinesOf(context), context.callOptions());
    return {
      data: result,
      async text() {
        if (result.machines.length === 0) return "there are no machines";
        const lines = result.machines.map((info) => [
          printable(info.name),
          shownState(info, context.style),
          hardwareOf(info),
          context.style.dim(printable(info.error ?? info.description)),
        ]);
        return (await renderTable(lines, [])).join("\n");
      },
    };
  },
};

export const inspect: CommandDefinition = {
  name: "vm inspect",
  harmless: true,
  arguments: [NAME],
  examples: [{ line: "cairn vm inspect web", text: "show its hardware, and where its saved states are" }],
  async run(context, input) {
    const info = await onMachine(context, input, "inspectMachine");
    return { data: info, text: () => shown(context, info) };
  },
};

function shown({ style }: Context, info: MachineInfo): string {
  const rows: [string, string][] = [
    ["state", `${shownState(info, style)}${info.pid === null ? "" : `, process ${info.pid}`}`],
    ...(info.error === null ? [] : ([["error", printable(info.error)]] as [string, string][])),
    ["machine", `${hardwareOf(info)}; ${info.hypervisor}, ${info.cpu}, ${info.accelerator}`],
    ...(info.image === "" ? [] : ([["image", printable(info.image)]] as [string, string][])),
    [
      "saved",
      info.lineage.length === 0
        ? "never"
        : `${plural(info.lineage.length, "time")}: cairn -C ${printable(info.saved)} history`,
    ],
    ["console", printable(info.console_log)],
    ["made", info.created_at],
  ];
  return [style.bold(printable(info.name)), ...rows.map(([key, value]) => `  ${key.padEnd(8)} ${value}`)].join("\n");
}

const REMOVED = new VerbOptions(RemoveMachineOptions.entries);
export const rm: CommandDefinition = {
  name: "vm rm",
  arguments: [NAME],
  options: REMOVED.definitions,
  examples: [{ line: "cairn vm rm web --delete-points", text: "remove it with its saved states" }],
  async run(context: Context, input: Input) {
    const result = await onMachine(context, input, "removeMachine", REMOVED.read(context, input));
    return { data: result, text: () => `${context.style.green("removed")} ${printable(result.name)}` };
  },
};
