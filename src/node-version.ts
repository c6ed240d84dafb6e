// The library's first file, which must run even on a Node that is too old for the others: no imports, and nothing newer than Node 18.

const NEEDED_MAJOR = 24;

if (Number.parseInt(process.versions.node, 10) < NEEDED_MAJOR)
  throw new Error(
    `cairnstate: Node ${NEEDED_MAJOR} or newer is needed, this is ${process.versions.node} (${process.execPath})`,
  );

export {};
