import { z } from 'zod';
import { exampleOf, type Json } from './fixtures.ts';
import { contractObjects } from './objects.ts';

export type JsonObject = { [key: string]: Json };

const fixturesById = new Map(
  Object.entries(contractObjects).map(([name, schema]) => [z.globalRegistry.get(schema)?.id, name]),
);

/**
 * What a sender may write, each named schema with its first fixture as an example. Refinements that JSON Schema cannot
 * say (bytes of UTF-8, NUL, rules across fields) are left out.
 */
const options: z.core.ToJSONSchemaParams = {
  io: 'input',
  override: ({ zodSchema, jsonSchema }) => {
    const { id } = z.globalRegistry.get(zodSchema) ?? {};
    const name = fixturesById.get(id);
    if (id !== undefined && name !== undefined) jsonSchema.examples = [exampleOf(name)];
  },
};

/** Self-contained documents, by file name. */
export const jsonSchemas = (): Record<string, JsonObject> =>
  Object.fromEntries(
    Object.entries(contractObjects).map(([name, schema]) => {
      const { $schema, ...rest } = z.toJSONSchema(schema, options);
      const document = { $schema, $id: `urn:realtime-service:${name.replace('/', ':')}`, ...rest };
      return [`${name}.json`, JSON.parse(JSON.stringify(document))];
    }),
  );

/** Converts schemas for one document that keeps the named ones in `components.schemas`: they gather in `components`. */
export const schemaConverter = (target: 'draft-2020-12' | 'draft-7') => {
  const components: JsonObject = {};
  const convert = (schema: z.ZodType): JsonObject => {
    const document = JSON.stringify(z.toJSONSchema(schema, { ...options, target }));
    const moved = document.replaceAll(/"#\/(?:\$defs|definitions)\//g, '"#/components/schemas/');
    const { $schema: _, $defs = {}, definitions = $defs, ...rest } = JSON.parse(moved);
    Object.assign(components, definitions);
    return rest;
  };
  return { components, convert };
};
