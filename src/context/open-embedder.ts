import type { Embedder, EmbeddingConfig } from "./embedding.ts";

/** Null for a store without vectors. */
export async function openEmbedder(config: EmbeddingConfig): Promise<Embedder | null> {
  switch (config.provider) {
    case "none":
      return null;
    case "embedded":
      return (await import("./embedded-model.ts")).openModel();
    case "openai":
      return new (await import("./endpoint.ts")).Endpoint(config);
  }
}
