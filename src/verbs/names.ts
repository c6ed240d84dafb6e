import * as bundles from "../contract/bundles.ts";
import * as care from "../contract/care.ts";
import * as context from "../contract/context.ts";
import * as databases from "../contract/databases.ts";
import * as directories from "../contract/export-directory.ts";
import * as looking from "../contract/looking.ts";
import * as machines from "../contract/machines.ts";
import * as msgvault from "../contract/msgvault.ts";
import * as points from "../contract/points.ts";
import * as repositories from "../contract/repositories.ts";
import type { AnySchema } from "../contract/schema.ts";
import * as service from "../contract/service.ts";
import * as snapshots from "../contract/snapshots.ts";
import * as turns from "../contract/turns.ts";
import * as words from "../contract/words.ts";
import * as ofVerbs from "./schemas.ts";

/** The modules whose types the package exports; a test compares the list with `contract/index.ts`. */
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
  ofVerbs,
];

function isSchema(value: unknown): value is AnySchema {
  return typeof value === "object" && value !== null && (value as { kind?: unknown }).kind === "schema";
}

/** Schemas of the contract and of the verbs by the name of their exported type. */
export const SCHEMAS: Readonly<Record<string, AnySchema>> = Object.fromEntries(
  MODULES.flatMap((module) =>
    Object.entries(module).flatMap(([name, value]) => (/^[A-Z]/.test(name) && isSchema(value) ? [[name, value]] : [])),
  ),
);
