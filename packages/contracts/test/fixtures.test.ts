import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { describe, expect, it } from 'vitest';
import { ZodError } from 'zod';
import { readFixtures } from '../scripts/fixtures.ts';
import { jsonSchemas } from '../scripts/json-schema.ts';
import { contractObjects } from '../scripts/objects.ts';
import {
  faultsOf,
  fromStructured,
  type ProblemFault,
  readLivekitWebhook,
  readRecord,
  readRoomEvent,
  toBinaryHeaders,
} from '../src/index.ts';

type Reading = { readonly value: unknown } | { readonly paths: readonly string[] };

const folder = fileURLToPath(new URL('../fixtures', import.meta.url));
const readJson = (name: string) => JSON.parse(readFileSync(`${folder}/${name}.json`, 'utf8'));

const pathsOf = (faults: readonly ProblemFault[]): string[] => [...new Set(faults.map(({ path }) => path))];

/** Room events are read as services read them; the rest by its schema. */
const read = (name: string, value: unknown): Reading => {
  if (name.startsWith('room-events/')) return readWholeEvent(value);
  const parsed = contractObjects[name]?.safeParse(value);
  if (parsed?.success) return { value: parsed.data };
  return { paths: parsed === undefined ? [] : pathsOf(faultsOf(parsed.error)) };
};

const readWholeEvent = (value: unknown): Reading => {
  try {
    const { context, data } = fromStructured(value);
    const reading = readRoomEvent({ context, data });
    if (reading.kind === 'event') return { value: { ...context, data: reading.event.data } };
    return { paths: reading.kind === 'invalid' ? pathsOf(reading.faults) : ['/type'] };
  } catch (error) {
    if (!(error instanceof ZodError)) throw error;
    return { paths: pathsOf(faultsOf(error)) };
  }
};

const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, allErrors: true });
addFormats.default(ajv);
const validators = new Map(
  Object.entries(jsonSchemas()).map(([file, schema]) => [file.replace(/\.json$/, ''), ajv.compile(schema)]),
);

it('every object has fixtures, and every fixture file an object', () => {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.json'))
    .map((file) => file.replaceAll('\\', '/').replace(/\.json$/, ''));
  expect(files.sort()).toEqual([...Object.keys(contractObjects), 'livekit/webhooks', 'records'].sort());
});

describe.each(Object.keys(contractObjects))('%s', (name) => {
  const { valid, invalid } = readFixtures(name);
  const isValidJson = (value: unknown) => validators.get(name)?.(value);

  it.each(valid)('reads: $name', ({ value, parsed = value }) => {
    const reading = read(name, value);
    expect(reading).toEqual({ value: parsed });
    expect(isValidJson(value)).toBe(true);
    if ('value' in reading) expect(read(name, JSON.parse(JSON.stringify(reading.value)))).toEqual(reading);
  });

  it.each(invalid)('refuses: $name', ({ value, paths, beyondJsonSchema = false }) => {
    expect(read(name, value)).toEqual({ paths });
    expect(isValidJson(value)).toBe(beyondJsonSchema);
  });
});

describe('room events in binary mode', () => {
  const events = Object.keys(contractObjects).filter((name) => name.startsWith('room-events/'));
  it.each(events)('%s survives the way through Kafka', (name) => {
    for (const { value } of readFixtures(name).valid) {
      const { context, data } = fromStructured(value);
      const headers = Object.entries(toBinaryHeaders(context)).map(([header, text]) => [header, Buffer.from(text)]);
      const record = { value: Buffer.from(JSON.stringify(data ?? {})), headers: Object.fromEntries(headers) };
      const sequence = context.sequence?.padStart(20, '0');
      const expected = { ...context, sequence, datacontenttype: 'application/json' };
      expect(readRecord(record)).toEqual({ kind: 'event', event: { context: expected, data: data ?? {} } });
    }
  });
});

describe("LiveKit's webhooks", () => {
  it.each(readJson('livekit/webhooks') as { name: string; value: unknown; reading: unknown }[])(
    '$name',
    ({ value, reading }) => {
      expect(readLivekitWebhook(value)).toEqual(reading);
    },
  );
});

describe('records', () => {
  interface RecordFixture {
    readonly name: string;
    readonly headers: Readonly<Record<string, string | { readonly base64: string }>>;
    readonly value: string | null;
    readonly reading: unknown;
  }
  it.each(readJson('records') as RecordFixture[])('$name', ({ headers, value, reading }) => {
    const bytes = (text: string | { base64: string }) =>
      new Uint8Array(typeof text === 'string' ? Buffer.from(text) : Buffer.from(text.base64, 'base64'));
    const record = {
      value: value === null ? null : Buffer.from(value, 'base64'),
      headers: Object.fromEntries(Object.entries(headers).map(([name, text]) => [name, bytes(text)])),
    };
    expect(readRecord(record)).toEqual(reading);
  });
});
