import { folder, freezeToken } from "../../contract/daemon.ts";
import { anything, object, opt, orNull, text } from "../../contract/schema.ts";
import { daemonCall } from "../kinds/define.ts";

export const freezeOffer = daemonCall({
  about: "Offers to write nothing while the folder is saved; lines tell when.",
  takes: [folder()],
  output: object({ freeze: opt(text()), thaw: opt(text()) }),
  how: "stream",
  errors: ["not_a_workspace"],
  passing: true,
  lasts: true,
});

export const freezeBegin = daemonCall({
  about: "Has all who offered it write nothing, for a minute at most.",
  takes: [folder()],
  output: anything(),
  errors: ["not_a_workspace"],
  passing: true,
});

export const frozen = daemonCall({
  about: "Tells that nothing is written from now on.",
  takes: [freezeToken()],
  output: orNull(anything()),
  passing: true,
});

export const freezeEnd = daemonCall({
  about: "Ends what `freezeBegin` began.",
  takes: [freezeToken()],
  output: orNull(anything()),
  passing: true,
});
