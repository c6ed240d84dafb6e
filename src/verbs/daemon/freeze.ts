import { folder, freezeToken } from "../../contract/daemon.ts";
import { anything, object, opt, orNull, text } from "../../contract/schema.ts";
import { daemonCall } from "../kinds/define.ts";

export const freezeOffer = daemonCall({
  about: "Offers to pause writes while the folder is saved. Lines of the stream tell when to pause and resume.",
  takes: [folder()],
  output: object({ freeze: opt(text()), thaw: opt(text()) }),
  how: "stream",
  errors: ["not_a_workspace"],
  passing: true,
  lasts: true,
});

export const freezeBegin = daemonCall({
  about: "Asks every client that offered a freeze to pause its writes, for a minute at most.",
  takes: [folder()],
  output: anything(),
  errors: ["not_a_workspace"],
  passing: true,
});

export const frozen = daemonCall({
  about: "Confirms that writes are paused.",
  takes: [freezeToken()],
  output: orNull(anything()),
  passing: true,
});

export const freezeEnd = daemonCall({
  about: "Ends the pause that `freezeBegin` began.",
  takes: [freezeToken()],
  output: orNull(anything()),
  passing: true,
});
