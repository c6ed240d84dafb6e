import type { JsonObject } from "../formats/fields.ts";
import { isObject, type Layout } from "../formats/ovpack/manifest.ts";
import type { IndexRecord } from "../formats/ovpack/records.ts";
import type { Bundle, BundleCall } from "./bundle.ts";
import { type EntryToPack, type Vectors, writeBundle } from "./write.ts";

/** Writes the content of a bundle in another layout; members that this program does not know are kept. All of it is checked first. */
export async function convertBundle(
  bundle: Bundle,
  {
    to,
    layout,
    withoutVectors = false,
    ...call
  }: BundleCall & { to: string; layout: Layout; withoutVectors?: boolean },
): Promise<Awaited<ReturnType<typeof writeBundle>>> {
  await bundle.verify({ signal: call.signal });
  const { value, files, dense } = bundle.manifest;
  const { entries, vectors: _, index: __, ...manifest } = value;
  const sizes = new Map(files.map((file) => [file.path, file]));
  const listed = (entries as JsonObject[]).map((entry): EntryToPack => {
    const path = entry["path"] as string;
    const file = sizes.get(path);
    const from = file === undefined ? {} : { file: { size: file.size, read: () => bundle.read(file) } };
    return { path, more: entry, ...from };
  });
  const embedding = (bundle.manifest.value["index"] as { dense?: { embedding?: unknown } } | undefined)?.dense
    ?.embedding;
  const vectors: Vectors | null =
    dense === null || withoutVectors
      ? null
      : { ...dense, embedding: isObject(embedding) ? embedding : {}, read: () => bundle.dense() };
  const records = withoutVectors ? () => unplaced(bundle.records()) : () => bundle.records();
  const content = { layout, manifest: manifest as JsonObject & { root: { name: string } }, entries: listed };
  return await writeBundle(to, { ...content, records, vectors }, call);
}

async function* unplaced(records: AsyncIterable<IndexRecord>): AsyncGenerator<IndexRecord> {
  for await (const { vector: _, ...record } of records) yield record;
}
