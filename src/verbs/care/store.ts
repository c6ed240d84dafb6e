import { StoreInfo } from "../../contract/care.ts";
import { CallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const store = workspaceVerb({
  about: "Tells where the store is, and how to open it with restic.",
  options: CallOptions,
  output: StoreInfo,
  command: "store",
  looks: true,
  run: async ({ workspace }, options) => (await import("../../look/status.ts")).store(workspace, options),
});
