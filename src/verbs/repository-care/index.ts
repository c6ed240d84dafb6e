/** Verbs that prove, mend and lock a repository, and its keys. */
export { verify } from "./verify.ts";
export { prune } from "./prune.ts";
export { keys, addKey, removeKey, changePassword } from "./keys.ts";
export { addAgeKey } from "./add-age-key.ts";
export { repair } from "./repair.ts";
export { repairSnapshots } from "./repair-snapshots.ts";
export { recover } from "./recover.ts";
export { cat } from "./cat.ts";
export { unlock } from "./unlock.ts";
