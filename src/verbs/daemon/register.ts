import { AdoptOptions } from "../../contract/care.ts";
import { Reference } from "../../contract/daemon.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { daemonCall } from "../kinds/define.ts";

export const register = daemonCall({
  about: "Opens a folder, or makes it a workspace; it is served from now on.",
  takes: [arg("path", place("absolute"))],
  options: AdoptOptions,
  output: Reference,
  errors: ["permission", "refused"],
  agents: [],
  checksPlaces: true,
});
