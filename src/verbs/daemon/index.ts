/** Calls of a daemon about itself. */
export { daemon } from "./status.ts";
export { at } from "./at.ts";
export { register } from "./register.ts";
export { release } from "./release.ts";
export { recover } from "./recover.ts";
export { list } from "./list.ts";
export { reload, reconcile } from "./reload.ts";
export { tokenCreate, tokenList, tokenRevoke } from "./tokens.ts";
export { freezeOffer, freezeBegin, frozen, freezeEnd } from "./freeze.ts";
