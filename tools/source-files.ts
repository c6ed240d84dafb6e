import { readdirSync } from "node:fs";
import path from "node:path";

/** Returns the sorted paths of production files below `source`: no tests, and no files that only tests use. */
export function productionFiles(source: string): string[] {
  return readdirSync(source, { recursive: true, encoding: "utf8" })
    .filter((file) => /\.tsx?$/.test(file) && !isTest(file) && !file.split(path.sep).includes("node_modules"))
    .toSorted();
}

/** True for tests and their helpers (`testing-*.ts`): they may import every file, but only tests may import them. */
export function isTest(file: string): boolean {
  return /\.(?:test|contract)\.tsx?$|(?:^|\/)test(?:ing)?-[^/]*\.tsx?$/.test(file);
}

/** Returns the room of a production file: a folder of src/, or `top` for a file that lies directly in src/. */
export function roomOf(file: string): string {
  return file.includes("/") ? file.slice(0, file.indexOf("/")) : "top";
}
