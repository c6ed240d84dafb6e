import { advice, CairnError, call, word } from "../errors.ts";
import { type Embedder, type EmbeddingConfig, KEY_VARIABLE, normalized } from "./embedding.ts";

const OPENAI = "https://api.openai.com/v1";
const TIMEOUT_MS = 60_000;
const TRIES = 3;
/** Texts in one request. */
const BATCH = 64;

/** An endpoint with `POST …/embeddings`. */
export class Endpoint implements Embedder {
  readonly #config: EmbeddingConfig;

  constructor(config: EmbeddingConfig) {
    this.#config = config;
  }

  async embed(texts: readonly string[], signal?: AbortSignal): Promise<Float32Array[]> {
    const vectors: Float32Array[] = [];
    for (let at = 0; at < texts.length; at += BATCH) {
      const batch = texts.slice(at, at + BATCH);
      for (const vector of await this.#asked(batch, signal)) vectors.push(vector);
    }
    return vectors;
  }

  async #asked(input: readonly string[], signal: AbortSignal | undefined): Promise<Float32Array[]> {
    for (let tried = 1; ; tried++) {
      try {
        return await this.#request(input, signal);
      } catch (error) {
        if (!(error instanceof CairnError) || !error.retryable || tried === TRIES || signal?.aborted === true)
          throw error;
      }
    }
  }

  async #request(input: readonly string[], signal: AbortSignal | undefined): Promise<Float32Array[]> {
    const { base_url: base, model, dimensions } = this.#config;
    const url = `${(base ?? OPENAI).replace(/\/+$/, "")}/embeddings`;
    // A key of OpenAI's is sent to no other server.
    const key = process.env[KEY_VARIABLE] ?? (base === undefined ? process.env["OPENAI_API_KEY"] : undefined);
    const limit = AbortSignal.timeout(TIMEOUT_MS);
    let response: Response;
    let body: { data?: { index?: number; embedding?: unknown }[]; error?: { message?: string } };
    try {
      response = await fetch(url, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
        },
        body: JSON.stringify({ model, input, encoding_format: "float" }),
        signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
      });
      body = (await response.json()) as typeof body;
    } catch (error) {
      if (signal?.aborted === true) throw new CairnError("interrupted", "making vectors was stopped", { cause: error });
      throw new CairnError("io", `${url} did not answer: ${(error as Error).message}`, {
        hint: advice`run ${call("context reindex", "reindexContext", word("store"))} to make the missing vectors`,
        cause: error,
      });
    }
    if (!response.ok) {
      const isKey = response.status === 401 || response.status === 403;
      const isRetried = response.status === 429 || response.status >= 500;
      throw new CairnError(
        isKey ? "permission" : isRetried ? "io" : "usage",
        `${url} answered ${response.status}: ${String(body.error?.message ?? "").slice(0, 300)}`,
        isKey ? { hint: `the key is read from ${KEY_VARIABLE}` } : {},
      );
    }
    const vectors = (body.data ?? []).map(({ embedding }, index) => ({
      index: body.data![index]!.index ?? index,
      embedding,
    }));
    vectors.sort((a, b) => a.index - b.index);
    if (vectors.length !== input.length)
      throw new CairnError("io", `${url} gave ${vectors.length} vectors for ${input.length} texts`);
    return vectors.map(({ embedding }) => {
      if (!Array.isArray(embedding) || (dimensions > 0 && embedding.length !== dimensions))
        throw new CairnError(
          "usage",
          `${url} gives vectors of ${Array.isArray(embedding) ? embedding.length : "no"} numbers, but the store has ${dimensions}`,
        );
      return normalized(Float32Array.from(embedding as number[]));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // An endpoint keeps no connection open.
  }
}
