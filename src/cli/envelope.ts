import type { CairnError } from "../errors.ts";
import { describeError, type ErrorRecord } from "../contract/error-record.ts";
import { printable } from "./render/format.ts";

const SCHEMA_VERSION = 1;
export const EXIT_PARTLY = 10;

/** True if one of a call's hooks failed: {@link EXIT_PARTLY}. */
export function hasFailed(hooks: readonly { exit_code: number | null }[] | undefined): boolean {
  return hooks?.some(({ exit_code: code }) => code !== 0) === true;
}

/** The one object that `--json` prints on stdout, for every command and every failure. */
export interface Envelope {
  schema_version: typeof SCHEMA_VERSION;
  /** Null if the line named no known command. */
  command: string | null;
  ok: boolean;
  data: unknown;
  warnings: string[];
  error: ErrorRecord | null;
}

export interface EnvelopeInput {
  command: string | null;
  exitStatus: number;
  data: unknown;
  warnings: readonly string[];
  error: CairnError | null;
}

export function makeEnvelope(input: EnvelopeInput): Envelope {
  return {
    schema_version: SCHEMA_VERSION,
    command: input.command,
    ok: input.exitStatus === 0 || input.exitStatus === EXIT_PARTLY,
    data: input.data ?? null,
    warnings: [...input.warnings],
    error: input.error === null ? null : describeError(input.error),
  };
}

/** Returns one line. Big integers become strings, because consumers of JSON do not expect them. */
export function printEnvelope(envelope: Envelope): string {
  // Some characters that JSON leaves unescaped control a terminal; programs read the escape as the same character.
  return `${printable(JSON.stringify(envelope, (_key, value: unknown) => (typeof value === "bigint" ? value.toString() : value)))}\n`;
}
