import { test } from "node:test";
import { startMinio } from "../fixtures/minio.ts";
import { s3Clauses } from "../fixtures/s3-clauses.ts";

const server = await startMinio();
if ("reason" in server) test("buckets on MinIO", (t) => t.skip(server.reason));
// It lists the uploads of one object only, and removes those that nobody ended by itself after a day.
else await s3Clauses("MinIO", server, { listsUploads: false });
