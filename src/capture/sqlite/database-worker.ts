import { clearAway } from "../../fs/remove-all.ts";
import { adviceOf, type Hint, toCairnError } from "../../errors.ts";
import { capture, hold, release } from "./capture.ts";
import { compareDatabases } from "./compare-databases.ts";
import { find } from "./find.ts";
import { holdStill, letGo } from "./hold-still.ts";
import { askOf, check, prove } from "./image.ts";
import { namedFiles } from "./named-files.ts";
import { hashThrough, stage, writeThrough } from "./restore.ts";

/** Kinds of work of this process, done one after the other. */
const WORKS = {
  ask: askOf,
  capture,
  check,
  compare: compareDatabases,
  find,
  hashThrough,
  hold,
  holdStill,
  letGo,
  namedFiles,
  prove,
  release,
  stage,
  writeThrough,
};
export type Works = typeof WORKS;

/** A piece of work, and the folder in which it may leave unfinished files. */
export interface Order {
  work: keyof Works;
  request: never;
  scratch: string | null;
}
export type Report = { answer: unknown } | { error: { code: string; message: string; hint: Hint | undefined } };

let scratch: string | null = null;

process.on("message", (order: Order) => {
  scratch = order.scratch;
  void perform(order).then((report) => process.send!(report, () => undefined));
});

// The parent process, which would remove unfinished files, has ended.
process.on("disconnect", () => {
  if (scratch !== null) clearAway(scratch);
  process.exit();
});

async function perform({ work, request }: Order): Promise<Report> {
  try {
    return { answer: await WORKS[work](request) };
  } catch (error) {
    const known = toCairnError(error);
    return { error: { code: known.code, message: known.message, hint: adviceOf(known) } };
  }
}
