/** Verbs that prove, mend, tidy and release a workspace. */
export { verify } from "./verify.ts";
export { verifyAll } from "./verify-all.ts";
export { doctor } from "./doctor.ts";
export { store } from "./store.ts";
export { seal, sealWhenIdle } from "./seal.ts";
export { setEngine } from "./set-engine.ts";
export { policy, setPolicy } from "./policy.ts";
export { previewCleanup, runCleanup } from "./cleanup.ts";
export { release } from "./release.ts";
