import { CairnError, ERROR_TABLE, type ErrorCode } from "../errors.ts";

/** An error as JSON says it. */
export interface ErrorRecord {
  code: ErrorCode;
  message: string;
  hint: string | null;
  retryable: boolean;
  /** Facts for programs, where there are some, e.g. the holder of a lock. */
  details?: Record<string, unknown>;
}

/** The error as JSON says it. */
export function describeError(error: CairnError): ErrorRecord {
  const described: ErrorRecord = {
    code: error.code,
    message: error.message,
    hint: error.hint ?? null,
    retryable: error.retryable,
  };
  if (error.details !== undefined) described.details = error.details;
  return described;
}

/** The error that another process has described. */
export function errorOf({ code, message, hint, details }: ErrorRecord): CairnError {
  const known = Object.hasOwn(ERROR_TABLE, code) ? code : "internal";
  return new CairnError(known, message, {
    ...(hint === null ? {} : { hint }),
    ...(details === undefined ? {} : { details }),
  });
}
