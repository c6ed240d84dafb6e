import type { Client } from "../contract/index.ts";
import type { SavePointId } from "../ids.ts";

/** Shortens ids as far as they stay unique. If other ids cannot be read, ids stay whole, so that the result can be printed. */
export type Shorten = (id: SavePointId) => string;

export async function shortener(client: Client, ids: readonly (SavePointId | null)[]): Promise<Shorten> {
  const known = [...new Set(ids.filter((id) => id !== null))];
  const short = await client.shortIds(known).catch(() => known);
  const table = new Map(known.map((id, i) => [id, short[i] ?? id]));
  return (id) => table.get(id) ?? id.slice(0, 8);
}
