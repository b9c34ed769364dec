import type { z } from 'zod';

/**
 * A field that may be left out. Null counts as left out: Java's and C#'s writers spell it so, and CloudEvents demands
 * it of attributes. Where null has a meaning of its own (`*.updated`), the schema says `nullable().optional()` instead.
 */
export const optional = <T extends z.ZodType>(schema: T) =>
  schema
    .nullable()
    .transform((value) => value ?? undefined)
    .optional();
