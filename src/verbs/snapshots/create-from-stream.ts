import { custom, list, object, opt, place, text } from "../../contract/schema.ts";
import { StreamBackupOptions, StreamBackupResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const createFromStream = repositoryVerb({
  about: "Makes a snapshot of one file from a stream. Makes none if the stream fails.",
  takes: [
    arg(
      "content",
      custom<AsyncIterable<Uint8Array>>(
        "AsyncIterable<Uint8Array>",
        "an async iterable",
        (value) => typeof value === "object" && value !== null && Symbol.asyncIterator in value,
      ),
    ),
  ],
  options: StreamBackupOptions,
  output: StreamBackupResult,
  errors: ["refused", "busy", "no_space", "interrupted"],
  command: "backup stream",
  run: async (...given) => (await import("../../backup/create/create-from-stream.ts")).createFromStream(...given),
});

export const createFromCommand = repositoryVerb({
  about: "Makes a snapshot of a command's stdout. Makes none if the command's exit status is not 0.",
  takes: [arg("command", list(text()))],
  options: object({ ...StreamBackupOptions.entries, cwd: opt(place()) }),
  output: StreamBackupResult,
  errors: ["io", "not_found", "permission"],
  run: async (access, command, options) => {
    const { checkCommand, processOutput } = await import("../../change/run.ts");
    checkCommand(command);
    const { cwd = process.cwd(), signal } = options;
    const { createFromStream: create } = await import("../../backup/create/create-from-stream.ts");
    return create(access, processOutput({ command, cwd, signal }), options);
  },
});
