import type { ExportPointResult } from "../../../contract/export-directory.ts";
import {
  CloneMachineOptions,
  ExportMachineOptions,
  RestoreMachineOptions,
  SaveMachineOptions,
  type SaveMachineResult,
} from "../../../contract/machines.ts";
import { omit, pick } from "../../../contract/schema.ts";
import type { CommandDefinition } from "../../command.ts";
import { usage } from "../../input.ts";
import { VerbOptions, withTags } from "../../options.ts";
import { printable } from "../../render/format.ts";
import { STREAM } from "../../../bundle/export-directory/tar.ts";
import { exported, placeOf } from "../export-directory.ts";
import { cloned, machinesOf, NAME, NEW_NAME, onMachine, renewed, withNewName } from "./place.ts";
import { streamed } from "./streams.ts";

const SAVED = new VerbOptions(omit(SaveMachineOptions, "cause"));

function saving(
  verb: "saveMachine" | "hibernateMachine",
  definition: Pick<CommandDefinition, "name" | "harmless" | "examples">,
  said: (result: SaveMachineResult) => string,
): CommandDefinition {
  return {
    ...definition,
    arguments: [NAME],
    options: SAVED.definitions,
    async run(context, input) {
      const result = await onMachine(context, input, verb, withTags(SAVED.read(context, input)));
      const { name, save_point: point } = result;
      return {
        data: result,
        text: () =>
          `${context.style.green("saved")} ${printable(name)} as ${point.save_point_id.slice(0, 8)}, ${said(result)}`,
      };
    },
  };
}

export const save = saving(
  "saveMachine",
  {
    name: "vm save",
    harmless: true,
    examples: [
      { line: 'cairn vm save web -m "before the upgrade"', text: "save it; the guest is paused for a moment" },
    ],
  },
  ({ has_memory, paused_ms }) =>
    paused_ms > 0
      ? `paused for ${paused_ms} ms, by which its clock is behind now`
      : has_memory
        ? "as it is hibernated"
        : "disks only: it is not running",
);

export const hibernate = saving(
  "hibernateMachine",
  {
    name: "vm hibernate",
    examples: [{ line: "cairn vm hibernate web", text: "save and stop it; `cairn vm start web` continues from there" }],
  },
  ({ name }) => `and stopped; to continue: cairn vm start ${printable(name)}`,
);

const EXPORTED = new VerbOptions(pick(ExportMachineOptions, "mode"));
export const exportState: CommandDefinition = {
  name: "vm export",
  arguments: [{ name: "<source>", text: "MACHINE, for its latest saved state, or MACHINE@POINT" }],
  options: [
    {
      flags: "-o, --to <dir>",
      text: "the export directory to write, absent or empty; `-`: one tar on the standard output, for `cairn vm import`",
    },
    ...EXPORTED.definitions,
  ],
  examples: [
    { line: "cairn vm export web --to /mnt/golden/web", text: "a directory that many machines can be cloned from" },
  ],
  async run(context, input) {
    const to = placeOf(input, "to");
    const library = await context.library();
    const [name, point] = input.required(0).split(/@(.*)/s);
    const write = async (place: string): Promise<ExportPointResult> =>
      library.exportMachine(machinesOf(context), name!, place, {
        ...context.callOptions(),
        ...EXPORTED.read(context, input),
        ...(point === undefined ? {} : { point }),
      });
    if (to === STREAM) return streamed(context, write);
    const result = await write(context.place(to));
    return {
      data: result,
      text: () => exported(context, result),
    };
  },
};

const CLONED = new VerbOptions(omit(CloneMachineOptions, "point", "isRestored"));
export const clone: CommandDefinition = {
  name: "vm clone",
  arguments: [{ name: "[source]", text: "MACHINE or MACHINE@POINT; with --from there is no source" }, NEW_NAME],
  options: CLONED.definitions,
  examples: [
    { line: "cairn vm clone web web-2", text: "clone the last saved state" },
    { line: "cairn vm clone --from /mnt/golden/web web-3", text: "clone an export directory, which is only read" },
  ],
  async run(context, input) {
    const options: CloneMachineOptions = CLONED.read(context, input);
    const isPoint = options.fromDirectory === undefined;
    if (isPoint ? input.argument(0) === undefined : input.argument(1) !== undefined)
      throw usage(
        "give either a save point or --from",
        "`cairn vm clone MACHINE [NEW]`, or `cairn vm clone --from DIR [NEW]`",
      );
    if (isPoint) options.point = input.required(0);
    const [library, root] = [await context.library(), machinesOf(context)];
    const result = await withNewName(root, input.argument(isPoint ? 1 : 0), async (name) =>
      library.cloneMachine(root, name, { ...context.callOptions(), ...options }),
    );
    return {
      data: result,
      text: () => cloned(context.style, result, "cloned"),
    };
  },
};

const RESTORED = new VerbOptions(omit(RestoreMachineOptions, "point"));
export const restore: CommandDefinition = {
  name: "vm restore",
  arguments: [NAME, { name: "[point]", text: "a save point of the machine, e.g. latest; or use --from" }],
  options: RESTORED.definitions,
  examples: [
    { line: "cairn vm restore web latest", text: "restore the last saved state" },
    { line: "cairn vm restore web --from /mnt/backup/web", text: "restore a state of it from an export directory" },
  ],
  async run(context, input) {
    const point = input.argument(1);
    const options = { ...(point === undefined ? {} : { point }), ...RESTORED.read(context, input) };
    const result = await onMachine(context, input, "restoreMachine", options);
    return {
      data: result,
      text: () =>
        `${context.style.green("restored")} ${printable(result.name)}${result.has_memory ? ", which continues from there" : "; start it with cairn vm start"}${renewed(result)}`,
    };
  },
};
