import { adviceOf, CairnError, ERROR_TABLE, type ErrorCode, type Hint } from "../errors.ts";

/** An error as JSON says it. */
export interface ErrorRecord {
  code: ErrorCode;
  message: string;
  hint: string | null;
  retryable: boolean;
  /** Facts for programs, where there are some, e.g. the holder of a lock. */
  details?: Record<string, unknown>;
  /** The hint with its calls and options, for a program at the other end of a socket. */
  advice?: Hint;
}

/** The error as JSON says it. */
export function describeError(error: CairnError): ErrorRecord {
  const { code, message, hint = null, retryable, details } = error;
  return { code, message, hint, retryable, ...(details === undefined ? {} : { details }) };
}

/** The error as a daemon tells it to a program. */
export function tellError(error: CairnError): ErrorRecord {
  const hint = adviceOf(error);
  return { ...describeError(error), ...(typeof hint === "object" ? { advice: hint } : {}) };
}

/** The error that another process has described. */
export function errorOf({ code, message, hint, details, advice }: ErrorRecord): CairnError {
  const known = Object.hasOwn(ERROR_TABLE, code) ? code : "internal";
  return new CairnError(known, message, { hint: advice ?? hint ?? undefined, details });
}
