import { nothing, number, object, type Of, opt } from "../../contract/schema.ts";
import { onWarning, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const SealWhenIdleOptions = object({ idleMs: opt(number("milliseconds, default 2000")), onWarning });
export type SealWhenIdleOptions = Of<typeof SealWhenIdleOptions>;

export const seal = workspaceVerb({
  about: "Seals the points that are held only as clones.",
  options: WorkspaceCallOptions,
  output: object({ sealed: number("number of points that were read and stored") }),
  command: "seal",
  looks: true,
  stores: true,
  run: async ({ workspace }, options) => (await import("../../look/verify.ts")).seal(workspace, options),
});

export const sealWhenIdle = workspaceVerb({
  about:
    "From now on seals the newest points while the client has no call in progress. The next call pauses it, `close` ends it.",
  options: SealWhenIdleOptions,
  output: nothing(),
  how: "at once",
  unserved: "a daemon seals what is asked for alone",
});
