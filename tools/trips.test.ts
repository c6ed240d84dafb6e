import assert from "node:assert/strict";
import { test } from "node:test";
import { calledIn, modulesIn } from "./trips.ts";

/** Two scripts of a build, of which the first has two modules. */
const FIRST = `({"fs:a.ts": (function(__require,exports,__url){let open=(...$)=>(open=__require("fs:b.ts").open)(...$);function a(){}}),
"fs:b.ts": (function(__require,exports,__url){function open(){}function close(){}})})`;
const SECOND = `({"fs-linux:c.ts": (function(__require,exports,__url){function a(){}})})`;
const MODULES = modulesIn(`${FIRST}\n${SECOND}\n`);

/** V8's report on a script: functions by the text that they begin with, and how often each was called. */
function covered(part: string, text: string, counts: readonly (readonly [beginning: string, count: number])[]) {
  const functions = counts.map(([beginning, count]) => ({
    ranges: [{ startOffset: text.indexOf(beginning), count }],
  }));
  return { url: `/dist/scripts-0f.cjs/${part}`, functions };
}

test("modules of a build's scripts are found", () => {
  assert.deepEqual(
    MODULES.starts.map(({ key }) => key),
    ["fs:a.ts", "fs:b.ts", "fs-linux:c.ts"],
  );
});

test("a file is entered when one of its functions is called, not when it is loaded", () => {
  const loaded = ["function(__require", 1] as const;
  assert.deepEqual(calledIn(MODULES, [covered("fs", FIRST, [loaded, ["function open()", 0]])]), {
    files: 0,
    functions: 0,
  });
  assert.deepEqual(calledIn(MODULES, [covered("fs", FIRST, [loaded, ["function open()", 3], ["function a()", 1]])]), {
    files: 2,
    functions: 2,
  });
});

test("a function that the linker added is none of the source, and two threads call one function", () => {
  const binder = covered("fs", FIRST, [["(...$)=>", 1]]);
  const thread = covered("fs-linux", SECOND, [["function a()", 1]]);
  assert.deepEqual(calledIn(MODULES, [binder, thread, thread]), { files: 1, functions: 1 });
});

test("scripts of other programs are not counted", () => {
  const other = { ...covered("fs-linux", SECOND, [["function a()", 1]]), url: "node:internal/process" };
  assert.deepEqual(calledIn(MODULES, [other]), { files: 0, functions: 0 });
});
