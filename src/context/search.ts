import { CairnError } from "../errors.ts";
import type { Hit } from "./index-database.ts";
import type { ContextStore } from "./store.ts";
import { parseUri, toUri } from "./uri.ts";

export type SearchMode = "both" | "semantic" | "words";

export interface SearchOptions {
  /** Only at or below this place. */
  under?: string | undefined;
  limit?: number | undefined;
  mode?: SearchMode | undefined;
  signal?: AbortSignal | undefined;
}

export interface Found {
  uri: string;
  level: number;
  context_type: string;
  name: string;
  abstract: string;
  /** Higher is better; only comparable within one answer. */
  score: number;
}

const MOST = 1000;
/** Ranks of both searches are joined by their reciprocals, as reciprocal rank fusion does. */
const RANK_OFFSET = 60;
const DEPTH = 50;

/** Finds records by their words, by their vectors, or by both. Best first. */
export async function find(store: ContextStore, query: string, options: SearchOptions = {}): Promise<Found[]> {
  const {
    under = "viking://",
    limit = 10,
    mode = store.index.dimensions === null ? "words" : "both",
    signal,
  } = options;
  const path = parseUri(under);
  if (!Number.isInteger(limit) || limit < 1 || limit > MOST)
    throw new CairnError("usage", `limit is to be 1 to ${MOST}, found ${limit}`);
  if (query.trim() === "")
    throw new CairnError("usage", "there is nothing to look for", { details: { field: "query" } });
  if (mode === "semantic" && store.index.dimensions === null)
    throw new CairnError("usage", "the store has no vectors", { hint: "search it by words" });
  const depth = mode === "both" ? Math.max(limit, DEPTH) : limit;
  const words = mode === "semantic" ? [] : store.index.searchWords(query, path, depth);
  let vectors: Hit[] = [];
  if (mode !== "words" && store.index.dimensions !== null) {
    const embedder = await store.embedder();
    const [vector] = await embedder!.embed([query], signal);
    vectors = store.index.searchVectors(vector!, path, depth);
  }
  const hits =
    mode === "both"
      ? fused(words, vectors)
      : mode === "words"
        ? words.map(({ id, score }) => ({ id, score: -score }))
        : vectors;
  const given = hits.slice(0, limit);
  store.index.countUse(given.map(({ id }) => id));
  return given.flatMap(({ id, score }): Found[] => {
    const row = store.index.row(id);
    if (row === null) return [];
    const { level, contextType, name, abstract } = row;
    return [{ uri: toUri(row.path), level, context_type: contextType, name, abstract, score }];
  });
}

function fused(words: readonly Hit[], vectors: readonly Hit[]): Hit[] {
  const scores = new Map<number, number>();
  for (const hits of [words, vectors])
    for (const [rank, { id }] of hits.entries()) scores.set(id, (scores.get(id) ?? 0) + 1 / (RANK_OFFSET + rank + 1));
  return [...scores].map(([id, score]) => ({ id, score })).toSorted((a, b) => b.score - a.score || a.id - b.id);
}
