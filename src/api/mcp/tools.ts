import { jsonSchemaOf, jsonSchemaOfMembers, type JsonSchema } from "../../contract/json-schema.ts";
import { CLIENT_VERBS } from "../../verbs/index.ts";
import type { Tool } from "../../verbs/kinds/tool.ts";

/** Tools of agents, by the name of their verb. */
export const TOOLS: Readonly<Record<string, Tool>> = Object.fromEntries(
  Object.entries(CLIENT_VERBS as Readonly<Record<string, { tool?: Tool }>>).flatMap(([name, { tool }]) =>
    tool === undefined ? [] : [[name, tool]],
  ),
);

/** Describes a tool in the protocol's form. */
export function describeTool(name: string, { title, about, takes, output, changes }: Tool): Record<string, unknown> {
  return {
    name,
    title,
    description: about,
    inputSchema: jsonSchemaOfMembers(takes) as JsonSchema & { type: "object" },
    outputSchema: jsonSchemaOf(output),
    annotations: {
      title,
      readOnlyHint: !changes,
      destructiveHint: false,
      idempotentHint: !changes,
      openWorldHint: false,
    },
  };
}
