import assert from "node:assert/strict";
import { after, test } from "node:test";
import { hideModel, Scratch } from "../../context/testing-store.ts";
import { addToContext, checkContext, findInContext, initContext, reindexContext } from "./stores.ts";

const scratch = new Scratch();
after(() => scratch[Symbol.dispose]());

test("calls on a context store warn of a missing model package, unless they do not need the model", async () => {
  const warnings: string[] = [];
  const onWarning = (text: string): void => void warnings.push(text);
  const said = async (work: Promise<unknown>): Promise<boolean> => {
    warnings.length = 0;
    await work;
    assert.ok(warnings.length <= 1, warnings.join("\n"));
    return warnings.length === 1 && warnings[0]!.includes("npm install -g cairnstate-model");
  };
  const [folder, none] = [scratch.place("store"), scratch.place("none")];
  const add = addToContext.bind(null, folder, "viking://resources/a.ts", import.meta.filename);
  {
    using _hidden = hideModel();
    assert.equal(await said(initContext(folder, { onWarning })), true);
    assert.equal(await said(initContext(none, { embedding: "none", onWarning })), false);
    assert.equal(await said(findInContext(none, "word", { onWarning })), false);
    assert.equal(await said(add({ onWarning })), true);
    assert.equal(await said(findInContext(folder, "scratch", { onWarning })), true);
    assert.equal(await said(findInContext(folder, "scratch", { mode: "words", onWarning })), false);
    assert.equal(await said(checkContext(folder, { onWarning })), true);
    assert.equal(await said(reindexContext(folder, { onWarning })), true);
    await assert.rejects(initContext(scratch.place(), { embedding: "embedded" }), {
      code: "unsupported",
      hint: /npm install -g cairnstate-model/,
    });
  }
  assert.equal(await said(add({ overwrite: true, onWarning })), false);
  assert.equal(await said(findInContext(folder, "scratch", { onWarning })), false);
});
