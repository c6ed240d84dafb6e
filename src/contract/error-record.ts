import { adviceOf, CairnError, ERROR_TABLE, type ErrorCode, type Hint } from "../errors.ts";

/** An error in the form of JSON. */
export interface ErrorRecord {
  code: ErrorCode;
  message: string;
  hint: string | null;
  retryable: boolean;
  /** Facts for programs, if there are any, for example the holder of a lock. */
  details?: Record<string, unknown>;
  /** The hint with its calls and options, for a program at the other end of a socket. */
  advice?: Hint;
}

/** Returns an error in the form of JSON. */
export function describeError(error: CairnError): ErrorRecord {
  const { code, message, hint = null, retryable, details } = error;
  return { code, message, hint, retryable, ...(details === undefined ? {} : { details }) };
}

/** Returns an error in a daemon's form for programs. */
export function tellError(error: CairnError): ErrorRecord {
  const hint = adviceOf(error);
  return { ...describeError(error), ...(typeof hint === "object" ? { advice: hint } : {}) };
}

/** Returns the error that another process has described. */
export function errorOf({ code, message, hint, details, advice }: ErrorRecord): CairnError {
  const known = Object.hasOwn(ERROR_TABLE, code) ? code : "internal";
  return new CairnError(known, message, { hint: advice ?? hint ?? undefined, details });
}
