import { InitOptions, OpenOptions } from "../../contract/care.ts";
import { client } from "../../contract/index.ts";
import { flag, object, opt, place, rows } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { Conversion, EngineReason, WorkspaceRef } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const open = libraryVerb({
  about: "Opens a workspace, a self-contained root or a control directory.",
  takes: [arg("path", place())],
  options: OpenOptions,
  output: client,
  errors: ["not_a_workspace"],
  unserved: "`register` opens a folder that is kept, and keeps it",
  run: async (hand, path, options) => (await import("../../change/set-up.ts")).open(hand, path, options),
});

export const openOrInit = libraryVerb({
  about: "Opens a workspace, or makes the folder one. Concurrent calls end with the same id.",
  takes: [arg("path", place())],
  options: InitOptions,
  output: client,
  errors: ["refused"],
  command: {
    init: object({
      workspace: WorkspaceRef,
      engine_reasons: rows(EngineReason),
      self_contained: flag(),
      conversion: opt(Conversion),
    }),
  },
  unserved: "`register` opens a folder, or keeps it",
  run: async (hand, path, options) => (await import("../../change/set-up.ts")).openOrInit(hand, path, options),
});
