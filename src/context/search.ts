import { CairnError } from "../errors.ts";
import { type Hit, inPairs } from "./index-database.ts";
import type { ContextStore } from "./store.ts";
import { modelMissing } from "./open-embedder.ts";
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
const DEPTH = 50;
/** Weight of words at which they count half of their maximum, compared with a cosine. */
const HALF = 4;
/** Words that carry no meaning in a query. */
const COMMON = new Set(
  "a an and are as at be but by can do does for from had has have how i if in is it its me my no not of on or our so that the their them there they this to was we what when where which who why will with you your".split(
    " ",
  ),
);

/** Finds records by their words, by their vectors, or by both; if the store lacks its model, by words alone. Best first. */
export async function find(store: ContextStore, query: string, options: SearchOptions = {}): Promise<Found[]> {
  const { under = "viking://", limit = 10, signal } = options;
  const { lacksModel } = store;
  const hasVectors = store.index.dimensions !== null && !lacksModel;
  const { mode = hasVectors ? "both" : "words" } = options;
  const path = parseUri(under);
  if (!Number.isInteger(limit) || limit < 1 || limit > MOST)
    throw new CairnError("usage", `limit must be 1 to ${MOST}, found ${limit}`);
  if (query.trim() === "") throw new CairnError("usage", "the query is empty", { details: { field: "query" } });
  if (mode === "semantic" && lacksModel) throw modelMissing("a search by meaning");
  if (mode === "semantic" && !hasVectors)
    throw new CairnError("usage", "the store has no vectors", { hint: "search it by words" });
  const depth = mode === "both" ? Math.max(limit, DEPTH) : limit;
  const asked = wordsOf(query);
  const words = mode === "semantic" ? [] : store.index.searchWords(asked, path, depth);
  let vectors: Hit[] = [];
  if (mode !== "words" && hasVectors) {
    const embedder = await store.embedder();
    const [vector] = await embedder!.embed([query], signal);
    vectors = store.index.searchVectors(vector!, path, depth);
  }
  const hits =
    mode === "both"
      ? joined(words, vectors, asked.length)
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

/** The meaningful words of a query; all words if none is. */
function wordsOf(query: string): string[] {
  const words = inPairs(query, true).match(/[\p{L}\p{N}_]+/gu) ?? [];
  const telling = words.filter((word) => !COMMON.has(word.toLowerCase()));
  return telling.length > 0 ? telling : words;
}

/** A cosine, and up to 1 more for words by their weight: ranks alone would give a frequent word the weight of a name. */
function joined(words: readonly Hit[], vectors: readonly Hit[], asked: number): Hit[] {
  const scores = new Map<number, number>(vectors.map(({ id, score }) => [id, score]));
  for (const { id, score } of words) {
    const weight = -score / asked;
    scores.set(id, (scores.get(id) ?? 0) + weight / (weight + HALF));
  }
  return [...scores].map(([id, score]) => ({ id, score })).toSorted((a, b) => b.score - a.score || a.id - b.id);
}
