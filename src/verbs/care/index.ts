/** Verbs that prove, mend, tidy and release a workspace. */
export { previewCleanup, runCleanup } from "./cleanup.ts";
export { doctor } from "./doctor.ts";
export { hooks, setHooks } from "./hooks.ts";
export { policy, setPolicy } from "./policy.ts";
export { planRelease, release } from "./release.ts";
export { RemovePathsOptions, RemovePathsResult, removePaths } from "./remove-paths.ts";
export { SealWhenIdleOptions, seal, sealWhenIdle } from "./seal.ts";
export { setEngine } from "./set-engine.ts";
export { store } from "./store.ts";
export { verifyAll } from "./verify-all.ts";
export { verify } from "./verify.ts";
