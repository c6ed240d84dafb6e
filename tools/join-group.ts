import { joinGroup } from "./processor-time.ts";

/** Imported first by a test's process: `node --import tools/join-group.ts`. */
joinGroup();
