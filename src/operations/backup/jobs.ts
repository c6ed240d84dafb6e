import { CairnError } from "../../errors.ts";

const MAX_JOBS = 64;

/** Throws `usage` for what is no number of threads. */
export function checkJobs(jobs: number | undefined): void {
  if (jobs !== undefined && !(Number.isInteger(jobs) && jobs >= 1 && jobs <= MAX_JOBS))
    throw new CairnError("usage", `as many threads cannot be had: ${jobs}`, { hint: `1 to ${MAX_JOBS}` });
}
