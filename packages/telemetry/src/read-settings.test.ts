import { expect, test } from 'vitest';
import { z } from 'zod';
import { settingLines, settingsOf } from './read-settings.ts';

const port = z.coerce.number().int().min(0).max(65_535);
const Own = z
  .object({
    PORT: port.default(8080).describe('Port'),
    LEVEL: z.enum(['low', 'high']).optional().describe('Level'),
    IS_ON: z.stringbool().default(true).describe('Whether it is on'),
    NAMES: z
      .string()
      .transform((text) => text.split(','))
      .prefault('a,b')
      .describe('Names'),
    MODE: z.string().optional().describe('One rule'),
  })
  .transform((env) => env);
const Other = z.object({ URL: z.url().describe('Address'), MODE: z.string().optional().describe('Another rule') });

test('a setting says what it takes and what it is where nothing is said', () => {
  expect(settingLines(Own.and(Other))).toEqual([
    ['PORT', 'Port (0 to 65535) [8080]'],
    ['LEVEL', 'Level (low, high) [unset]'],
    ['IS_ON', 'Whether it is on (true, false) [true]'],
    ['NAMES', 'Names [a,b]'],
    ['MODE', 'One rule. Another rule [unset]'],
    ['URL', 'Address [required]'],
  ]);
});

test('one that two schemas read is named once', () => {
  expect(settingsOf(Own.and(Other)).filter(({ name }) => name === 'MODE')).toHaveLength(1);
});
