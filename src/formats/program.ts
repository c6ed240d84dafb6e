/** The version of the package; a test holds it equal to package.json. */
export const VERSION = "0.1.0";

/** Name and version of the program, for files that state their writer. */
export const PROGRAM = `cairn ${VERSION}`;
