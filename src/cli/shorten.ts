import type { Client } from "../contract/index.ts";
import type { SavePointId } from "../ids.ts";

/** Shows ids as short as they can be told apart; whole where the other ids cannot be read: what was done is told all the same. */
export type Shorten = (id: SavePointId) => string;

export async function shortener(client: Client, ids: readonly (SavePointId | null)[]): Promise<Shorten> {
  const known = [...new Set(ids.filter((id) => id !== null))];
  const short = await client.shortIds(known).catch(() => known);
  const table = new Map(known.map((id, i) => [id, short[i] ?? id]));
  return (id) => table.get(id) ?? id.slice(0, 8);
}
