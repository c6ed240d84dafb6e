import { RegisterOptions } from "../../contract/care.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { daemonCall } from "../kinds/define.ts";
import { Reference } from "./schemas.ts";

export const register = daemonCall({
  about: "Opens a workspace, or makes a folder one, and serves it from now on.",
  takes: [arg("path", place("absolute"))],
  options: RegisterOptions,
  output: Reference,
  errors: ["permission", "refused"],
  agents: [],
  checksPlaces: true,
});
