/** The version of the package; a test holds it equal to package.json. */
export const VERSION = "0.1.0";

/** Name and version that files of this program say of who made them. */
export const PROGRAM = `cairn ${VERSION}`;
