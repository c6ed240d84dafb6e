import { startRadosgw } from "../fixtures/radosgw.ts";
import { s3Clauses } from "../fixtures/s3-clauses.ts";

await s3Clauses("radosgw", await startRadosgw());
