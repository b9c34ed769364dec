import { readFileSync } from 'node:fs';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Golden values of one object. `parsed` where reading changes something, `paths` where a reader must point. */
export interface Fixtures {
  readonly valid: readonly { readonly name: string; readonly value: Json; readonly parsed?: Json }[];
  readonly invalid: readonly {
    readonly name: string;
    readonly value: Json;
    readonly paths: readonly string[];
    /** JSON Schema cannot express the rule. */
    readonly beyondJsonSchema?: true;
  }[];
}

export const readFixtures = (name: string): Fixtures =>
  JSON.parse(readFileSync(new URL(`../fixtures/${name}.json`, import.meta.url), 'utf8'));

/** The first valid value: the example that documents show. */
export const exampleOf = (name: string): Json => {
  const example = readFixtures(name).valid[0];
  if (example === undefined) throw new Error(`${name} has no valid fixture`);
  return example.value;
};
