import { type JsonObject } from "../formats/fields.ts";

/** Makers of vectors. */

export interface EmbeddingConfig {
  /** `embedded`: the model of an optional package; `openai`: an endpoint with OpenAI's protocol; `none`: words only. */
  provider: "embedded" | "openai" | "none";
  model: string;
  /** Length of a vector; 0 without vectors. */
  dimensions: number;
  /** Address of an endpoint, up to and with `/v1`. */
  base_url?: string;
}

export interface Embedder extends AsyncDisposable {
  /** Returns a vector of length 1 for each text. Throws `io` (may be retried), `permission`. */
  embed(texts: readonly string[], signal?: AbortSignal): Promise<Float32Array[]>;
}

export const EMBEDDED_MODEL = "all-minilm-l6-v2-static";
export const EMBEDDED_DIMENSIONS = 256;
/** The variable with an endpoint's key, which is never stored. */
export const KEY_VARIABLE = "CAIRN_EMBEDDING_KEY";

/** The settings that made vectors, as bundles record them. OpenViking also compares `input`, by default `multimodal` there. */
export function embeddingFacts({ provider, model, dimensions }: EmbeddingConfig): JsonObject {
  const isOwn = provider === "embedded";
  return { provider: isOwn ? "cairn" : provider, model, input: isOwn ? "text" : "multimodal", dimensions };
}

/** The vector scaled to length 1; a zero vector stays as it is. */
export function normalized(vector: Float32Array): Float32Array {
  let sum = 0;
  for (const each of vector) sum += each * each;
  if (sum === 0) return vector;
  const factor = 1 / Math.sqrt(sum);
  return vector.map((each) => each * factor);
}
