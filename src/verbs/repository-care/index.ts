/** Verbs that prove, mend and lock a repository, and its keys. */
export { addAgeKey } from "./add-age-key.ts";
export { cat } from "./cat.ts";
export { drill } from "./drill.ts";
export { addKey, changePassword, keys, removeKey } from "./keys.ts";
export { prune } from "./prune.ts";
export { recover } from "./recover.ts";
export { repairSnapshots } from "./repair-snapshots.ts";
export { repair } from "./repair.ts";
export { unlock } from "./unlock.ts";
export { verify } from "./verify.ts";
