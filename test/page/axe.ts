import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Violation {
  id: string;
  nodes: { html: string; failureSummary: string }[];
}

/** Returns what axe finds wrong in the page. */
export async function violations(page: Page): Promise<string[]> {
  const found = (await page.evaluate(`${AXE};axe.run(document).then(({ violations }) => violations)`)) as Violation[];
  return found.flatMap(({ id, nodes }) =>
    nodes.map((each) => `${id}: ${each.html.slice(0, 160)} ${each.failureSummary.slice(0, 300)}`),
  );
}
