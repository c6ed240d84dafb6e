import { STATUS_CODES, type IncomingHttpHeaders } from "node:http";
import { CairnError, type ErrorCode } from "../../../errors.ts";
import type { S3Addressing } from "./location.ts";
import { parseXml, textOf } from "./xml.ts";
import { withoutSecrets } from "../http-connection.ts";
import { FULL_HINT } from "../storage.ts";

/** A server's answer; a long body is cut. */
export interface S3Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** The error in an answer: S3's own code and message, empty if the answer has none. */
export interface S3Failure {
  readonly code: string;
  readonly message: string;
  /** The region that the server asks for, or null. */
  readonly region: string | null;
}

interface Meaning {
  readonly code: ErrorCode;
  readonly hint?: string;
}

const CREDENTIALS =
  "the server does not know the credentials, or they lack the right; choose others with AWS_PROFILE or AWS_ACCESS_KEY_ID";

/** The meaning of S3 error codes that are more specific than the HTTP status. */
const BY_CODE: Readonly<Record<string, Meaning>> = {
  NoSuchBucket: { code: "not_found", hint: "create the bucket first, or correct its name in the address" },
  NoSuchKey: { code: "not_found" },
  InvalidBucketName: {
    code: "usage",
    hint: "correct the bucket's name in the address (3 to 63 of a-z, 0-9, - and .)",
  },
  // Another program removed the upload as a leftover; the whole file is sent again.
  NoSuchUpload: { code: "io" },
  PreconditionFailed: { code: "already_exists" },
  ConditionalRequestConflict: { code: "io" },
  OperationAborted: { code: "io" },
  RequestTimeout: { code: "io" },
  IncompleteBody: { code: "io" },
  BadDigest: { code: "io" },
  SlowDown: { code: "busy" },
  TooManyRequests: { code: "busy" },
  ServiceUnavailable: { code: "busy" },
  XAmzContentSHA256Mismatch: {
    code: "io",
    hint: "the bytes were changed on their way, or the file does not match its name",
  },
  InvalidRange: { code: "damaged" },
  EntityTooLarge: { code: "refused", hint: "the file is larger than the server accepts" },
  QuotaExceeded: { code: "no_space", hint: FULL_HINT },
  StorageFull: { code: "no_space", hint: FULL_HINT },
  XMinioStorageFull: { code: "no_space", hint: FULL_HINT },
  ExpiredToken: { code: "permission", hint: "the session token has expired: fetch new credentials" },
  InvalidToken: { code: "permission", hint: "the session token is not valid: fetch new credentials" },
  // MinIO's name of the same error.
  InvalidTokenId: { code: "permission", hint: "the session token is not valid: fetch new credentials" },
  TokenRefreshRequired: { code: "permission", hint: "the session token has expired: fetch new credentials" },
  InvalidAccessKeyId: { code: "permission", hint: CREDENTIALS },
  SignatureDoesNotMatch: {
    code: "permission",
    hint: "the secret key does not belong to the access key, or a proxy changes requests",
  },
  AccessDenied: { code: "permission", hint: CREDENTIALS },
  InvalidObjectState: { code: "unsupported", hint: "the file lies in an archive (Glacier): restore it there first" },
};

/** Hint for servers that ignore the bucket in the host's name and take the first part of the key for the bucket. */
export const BY_PATH_HINT = "if the server does not find buckets by host name, set CAIRN_S3_ADDRESSING=path";

const WRONG_REGION =
  /^(?:PermanentRedirect|TemporaryRedirect|Redirect|AuthorizationHeaderMalformed|IllegalLocationConstraintException|InvalidRegion)$/;

/** Returns S3's code and message of an answer; empty if the answer is not readable. */
export function failureOf(answer: S3Answer): S3Failure {
  let code = "";
  let message = "";
  let region = answer.headers["x-amz-bucket-region"];
  try {
    const root = parseXml(answer.body);
    if (root.name === "Error") {
      code = textOf(root, "Code") ?? "";
      message = textOf(root, "Message") ?? "";
      region ??= textOf(root, "Region") ?? undefined;
    }
  } catch {
    // Proxies answer in HTML; then the status has to do.
  }
  return {
    code: /^[A-Za-z0-9.]{1,64}$/.test(code) ? code : "",
    message: message.replaceAll(/[^\x20-\x7e]/g, "?").trim(),
    region: typeof region === "string" && /^[a-z0-9-]{1,40}$/.test(region) ? region : null,
  };
}

/** True if the server asks for another region, in the address or in the signature. */
export function isWrongRegion(answer: S3Answer, failure: S3Failure): boolean {
  if (WRONG_REGION.test(failure.code)) return true;
  // An answer to HEAD has no body; only the header names the region.
  return failure.code === "" && [301, 307, 400].includes(answer.status) && failure.region !== null;
}

export interface FailureContext {
  /** The begin of messages: `cannot read pack 1a2b3c4d`. */
  readonly doing: string;
  readonly location: string;
  readonly region: string;
  readonly addressing: S3Addressing;
  /** Texts that must not appear in a message. */
  readonly secrets: readonly string[];
  /** Milliseconds since 1970 by this machine's clock. */
  readonly now: number;
}

/** Returns the error for an answer. `retryable` errors may be temporary. */
export function errorOfAnswer(answer: S3Answer, context: FailureContext): CairnError {
  const failure = failureOf(answer);
  const where = `${context.doing} at ${context.location}`;
  const details: Record<string, unknown> = { httpStatus: answer.status };
  if (failure.code !== "") details["s3Code"] = failure.code;
  if (isWrongRegion(answer, failure)) return regionError(failure, where, { context, details });
  if (failure.code === "RequestTimeTooSkewed") return clockError(answer, where, { context, details });
  const { code, hint } = meaningOf(answer.status, failure.code);
  const seconds = Number(answer.headers["retry-after"] ?? Number.NaN);
  if (seconds >= 0) details["retryAfterMs"] = Math.min(seconds, 3600) * 1000;
  const said = [`${answer.status} ${STATUS_CODES[answer.status] ?? ""}`.trim(), failure.code].filter(
    (part) => part !== "",
  );
  const message =
    failure.code === "SignatureDoesNotMatch" ? "" : withoutSecrets(failure.message, context.secrets).slice(0, 200);
  const text = `${where}: the server answered ${said.join(" ")}${message === "" ? "" : ` (${message})`}`;
  const isByHost = context.addressing === "host" && /^(?:InvalidBucketName|NoSuchBucket)$/.test(failure.code);
  const hints = [hint, isByHost ? BY_PATH_HINT : undefined].filter((each) => each !== undefined);
  return new CairnError(code, text, { details, ...(hints.length === 0 ? {} : { hint: hints.join("; ") }) });
}

function regionError(
  failure: S3Failure,
  where: string,
  { context, details }: { context: FailureContext; details: Record<string, unknown> },
): CairnError {
  const wanted = failure.region === null || failure.region === context.region ? null : failure.region;
  const text = `${where}: the bucket is not in region ${context.region}${wanted === null ? "" : ` but in ${wanted}`}`;
  const hint = `set AWS_REGION${wanted === null ? "" : `=${wanted}`}, or use the address of the bucket's own region`;
  return new CairnError("usage", text, { hint, details });
}

function clockError(
  answer: S3Answer,
  where: string,
  { context, details }: { context: FailureContext; details: Record<string, unknown> },
): CairnError {
  const theirs = Date.parse(answer.headers.date ?? "");
  const minutes = Math.round((context.now - theirs) / 60_000);
  const off = Number.isNaN(minutes)
    ? "too far from"
    : `${Math.abs(minutes)} minutes ${minutes < 0 ? "behind" : "ahead of"}`;
  return new CairnError(
    "permission",
    `${where}: this machine's clock is ${off} the server's, which refuses such requests`,
    {
      hint: "set the clock (NTP)",
      details,
    },
  );
}

function meaningOf(status: number, s3Code: string): Meaning {
  const known = Object.hasOwn(BY_CODE, s3Code) ? BY_CODE[s3Code] : undefined;
  if (known !== undefined) return known;
  if (status === 401 || status === 403) return { code: "permission", hint: CREDENTIALS };
  if (status === 404) return { code: "not_found" };
  if (status === 412) return { code: "already_exists" };
  if (status === 413) return { code: "refused", hint: "the file is larger than the server accepts" };
  if (status === 416) return { code: "damaged" };
  if (status === 423 || status === 429 || status === 503) return { code: "busy" };
  if (status === 507) return { code: "no_space", hint: FULL_HINT };
  if (status >= 300 && status < 400)
    return { code: "unsupported", hint: "redirects are not followed: use the server's own address" };
  if (status === 501) return { code: "unsupported", hint: "the server does not know this part of S3" };
  if (status === 408 || status === 409 || status >= 500) return { code: "io" };
  return { code: "unsupported", hint: "check the address: the server may not be an S3 server" };
}
