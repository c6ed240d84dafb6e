import * as bundles from "./bundles.ts";
import * as care from "./care.ts";
import * as context from "./context.ts";
import * as databases from "./databases.ts";
import * as directories from "./export-directory.ts";
import * as looking from "./looking.ts";
import * as machines from "./machines.ts";
import * as msgvault from "./msgvault.ts";
import * as points from "./points.ts";
import * as repositories from "./repositories.ts";
import type { AnySchema } from "./schema.ts";
import * as service from "./service.ts";
import * as snapshots from "./snapshots.ts";
import * as turns from "./turns.ts";
import * as words from "./words.ts";

/** The modules whose types `index.ts` exports; a test compares the two lists. */
const MODULES = [
  words,
  points,
  looking,
  care,
  snapshots,
  repositories,
  bundles,
  context,
  databases,
  directories,
  machines,
  msgvault,
  service,
  turns,
];

function isSchema(value: unknown): value is AnySchema {
  return typeof value === "object" && value !== null && (value as { kind?: unknown }).kind === "schema";
}

/** Schemas of the contract by the name of their exported type. */
export const SCHEMAS: Readonly<Record<string, AnySchema>> = Object.fromEntries(
  MODULES.flatMap((module) =>
    Object.entries(module).flatMap(([name, value]) => (isSchema(value) ? [[name, value]] : [])),
  ),
);
