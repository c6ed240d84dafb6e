import * as v from "valibot";
import { flag, number, type Of, oneOf, opt, orNull, strict, text } from "./schema.ts";

/** Bodies of the requests of OpenViking's own clients. Other members are refused. */

const OnConflict = opt(orNull(oneOf(["fail", "overwrite", "skip"])));
const VectorMode = opt(orNull(oneOf(["auto", "recompute", "require"])));

export const PackExportRequest = strict({ uri: text(), include_vectors: opt(flag()) });
export const PackBackupRequest = strict({ include_vectors: opt(flag()) });
export const PackImportRequest = strict({
  temp_file_id: text(),
  parent: text(),
  on_conflict: OnConflict,
  vector_mode: VectorMode,
});
export const PackRestoreRequest = strict({ temp_file_id: text(), on_conflict: OnConflict, vector_mode: VectorMode });
export const ConsistencyRequest = strict({ uri: text() });
export const WaitRequest = strict({ timeout: opt(orNull(number())) });

/** A member of a request that does not match its schema, in the form of OpenViking's servers. */
export interface ValidationError {
  loc: (string | number)[];
  message: string;
  type: string;
}

/** Returns the checked body, or all its errors. */
export function checkRequest<S extends v.GenericSchema>(
  schema: S,
  body: unknown,
): { value: Of<S> } | { errors: ValidationError[] } {
  const result = v.safeParse(schema, body);
  return result.success ? { value: result.output } : { errors: result.issues.map(toValidationError) };
}

function toValidationError(issue: v.BaseIssue<unknown>): ValidationError {
  const loc = ["body", ...(issue.path ?? []).map(({ key }) => key as string | number)];
  if (issue.expected === "never") return { loc, message: "Extra inputs are not permitted", type: "extra_forbidden" };
  if (issue.type.endsWith("object") && issue.expected?.startsWith('"') === true)
    return { loc, message: "Field required", type: "missing" };
  return { loc, message: `Input should be ${issue.message}`, type: `${issue.type}_type` };
}
