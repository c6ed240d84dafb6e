/** Calls of a daemon about itself. */
export { at } from "./at.ts";
export { pastEvents } from "./events.ts";
export { freezeBegin, freezeEnd, freezeOffer, frozen } from "./freeze.ts";
export { list } from "./list.ts";
export { recover } from "./recover.ts";
export { register } from "./register.ts";
export { release } from "./release.ts";
export { reconcile, reload } from "./reload.ts";
export { cancel, running } from "./running.ts";
export { DaemonStatus, Reference } from "./schemas.ts";
export { daemon } from "./status.ts";
export { TokenCreated, TokenInfo, TokenOptions, tokenCreate, tokenList, tokenRevoke } from "./tokens.ts";
