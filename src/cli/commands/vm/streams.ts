import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { namingTar, packTar, STREAM, unpackTar } from "../../../bundle/export-directory/tar.ts";
import type { ExportPointResult } from "../../../contract/export-directory.ts";
import { CloneMachineOptions } from "../../../contract/machines.ts";
import { omit } from "../../../contract/schema.ts";
import { makeFolder } from "../../../fs/make-folder.ts";
import { printablePath } from "../../../fs/paths/safe-path.ts";
import { removeAll } from "../../../fs/remove-all.ts";
import { unfinishedBeside } from "../../../fs/work-directory.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { cloned, machinesOf, NEW_NAME, withNewName } from "./place.ts";

/** Exports that travel through a pipe as one tar. The envelope is its last member, so a stream that stops early has none. */

/** Returns a new name in the folder of machines, which no machine can have; first removes the remains of killed commands there. */
function stageIn(root: string): string {
  makeFolder(root);
  return unfinishedBeside(join(root, "stream"));
}

/** Writes an export to the standard output. `make` writes the export directory. */
export async function streamed(context: Context, make: (to: string) => Promise<ExportPointResult>): Promise<Outcome> {
  if (context.globals.json) throw usage("the standard output is the export, so it has no room for --json");
  if (process.stdout.isTTY) throw usage("the export is not text: send it to a program or a file");
  const stage = stageIn(machinesOf(context));
  const data = await make(stage);
  return {
    data,
    text: () => "",
    async afterwards() {
      try {
        await packTar(stage, STREAM, context.signal);
      } finally {
        removeAll(stage);
      }
    },
  };
}

const IMPORTED = new VerbOptions(omit(CloneMachineOptions, "point", "fromDirectory", "isRestored"));
export const importStream: CommandDefinition = {
  name: "vm import",
  arguments: [{ name: "<source>", text: "a tar file of an export directory; `-`: the standard input" }],
  options: [{ flags: "--name <name>", text: NEW_NAME.text }, ...IMPORTED.definitions],
  examples: [
    {
      line: "cairn vm import - --name web",
      text: "of the tar that `cairn vm export web --to -` writes, also on another host",
    },
  ],
  async run(context, input) {
    const source = input.required(0);
    const root = machinesOf(context);
    const stage = stageIn(root);
    mkdirSync(stage, { mode: 0o700 });
    try {
      await unpackTar(source === STREAM ? STREAM : context.absolute(source), stage, context.signal);
      const library = await context.library();
      const options = { ...context.callOptions(), ...IMPORTED.read(context, input), fromDirectory: stage };
      const result = await withNewName(root, input.text("name"), async (name) =>
        library.cloneMachine(root, name, options),
      );
      return { data: result, text: () => cloned(context.style, result, "imported") };
    } catch (error) {
      const tar = source === STREAM ? "the standard input" : printablePath(source);
      throw namingTar(error, "import the machine", { stage, tar });
    } finally {
      removeAll(stage);
    }
  },
};
