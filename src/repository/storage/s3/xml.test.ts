import { strict as assert } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { CairnError } from "../../../errors.ts";
import { childrenOf, escapeXml, parseXml, textOf } from "./xml.ts";

function parse(text: string): ReturnType<typeof parseXml> {
  return parseXml(Buffer.from(text));
}

function refused(text: string | Uint8Array): void {
  assert.throws(
    () => parseXml(Buffer.from(text)),
    (error) => error instanceof CairnError && error.code === "io",
    String(text).slice(0, 80),
  );
}

test("parseXml reads elements, text and entities, and skips attributes and comments", () => {
  const root = parse(
    '\uFEFF<?xml version="1.0" encoding="UTF-8"?>\n<!-- <no> --><n:A xmlns="x" b=\'c\'>\n<Key>a&amp;&lt;&#x41;&#66;&quot;</Key><!--x--><Key/><E a="1" /></n:A>\n',
  );
  assert.equal(root.name, "A");
  assert.deepEqual(
    childrenOf(root, "Key").map(({ text }) => text),
    ['a&<AB"', ""],
  );
  assert.deepEqual([textOf(root, "E"), textOf(root, "None")], ["", null]);
});

test("parseXml refuses invalid documents, CDATA, processing instructions and DOCTYPE", () => {
  for (const text of [
    "",
    "text",
    "<a>",
    "<a></b>",
    "<a/><b/>",
    "<a/>x",
    "<a>&</a>",
    "<a>&x;</a>",
    "<a>&#0;</a>",
    "<a>&#xD800;</a>",
    "<a>&#x110000;</a>",
    "<a>&constructor;</a>",
    "<a><!-- </a>",
    "<a><![CDATA[x]]></a>",
    "<a><?php x?></a>",
    '<a b="<"/>',
    "<a b/>",
    "< a/>",
    "</a>",
    '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>',
    `${"<a>".repeat(20)}${"</a>".repeat(20)}`,
    `<a>${"<b/>".repeat(60_000)}</a>`,
  ])
    refused(text);
  refused(Uint8Array.of(0x3c, 0x61, 0x3e, 0xff, 0x3c, 0x2f, 0x61, 0x3e));
});

test("parseXml refuses long repetitions of markup in linear time", () => {
  const before = performance.now();
  for (const part of ["<", "<a ", " ", "<a b='", "&", "&#", "<!--", "<a/ ", "\t"]) refused(part.repeat(1 << 18));
  assert.ok(performance.now() - before < 20_000);
});

test("parseXml returns any escaped text unchanged, and throws only CairnError", () => {
  const character = fc.string({ unit: "binary", maxLength: 50 });
  fc.assert(
    fc.property(character, (text) => {
      if (!text.isWellFormed()) return;
      assert.equal(parse(`<a><b>${escapeXml(text)}</b></a>`).children[0]?.text, text);
    }),
  );
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom("<", ">", "a", "/", "&", ";", '"', "=", " ", "!", "-", "?"), maxLength: 40 }),
      (text) => {
        try {
          parse(text);
        } catch (error) {
          assert.ok(error instanceof CairnError);
        }
      },
    ),
    { numRuns: 1000 },
  );
});
