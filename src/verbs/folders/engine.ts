import { EngineResult } from "../../contract/care.ts";
import { nothing, place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions, EngineType } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const detectEngine = libraryVerb({
  about: "Returns the best engine for a folder, or the engine of a workspace. The tests leave nothing behind.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: EngineResult,
  command: { engine: EngineResult, "engine show": EngineResult, "engine set": EngineResult },
  run: async (_hand, path, options) => (await import("../../keep/engine.ts")).detectEngine(path, options),
});

export const validateEngine = libraryVerb({
  about: "Fails with the reason if an engine does not work for a folder.",
  takes: [arg("path", place()), arg("type", EngineType)],
  options: CallOptions,
  output: nothing(),
  errors: ["unsupported"],
  run: async (_hand, path, type, options) => (await import("../../keep/engine.ts")).requireEngine(path, type, options),
});
