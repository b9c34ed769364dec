import { Parser } from '@asyncapi/parser';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { describe, expect, it } from 'vitest';
import { asyncApi } from '../scripts/asyncapi.ts';
import { exampleOf } from '../scripts/fixtures.ts';
import { jsonSchemas } from '../scripts/json-schema.ts';
import { openApi } from '../scripts/openapi.ts';
import { eventsReference } from '../scripts/reference.ts';
import {
  fromHttpBinary,
  presenceEventTypes,
  presenceSource,
  problemCodes,
  problemStatus,
  readRoomEvent,
  roomEventTypes,
  topics,
} from '../src/index.ts';
import { commonProblems, routes } from '../src/routes.ts';

describe('AsyncAPI', () => {
  const source = asyncApi();

  it('has no fault that its parser finds, and every topic and type', async () => {
    const { document, diagnostics } = await new Parser().parse(JSON.stringify(source));
    expect(diagnostics.filter(({ severity }) => severity === 0)).toEqual([]);
    const channels = document?.channels().all() ?? [];
    expect(channels.map((channel) => channel.address())).toEqual(expect.arrayContaining(Object.values(topics)));
    const names = document
      ?.messages()
      .all()
      .map((message) => message.name());
    expect(names).toEqual(expect.arrayContaining([...roomEventTypes, ...presenceEventTypes]));
  });

  it.each([...roomEventTypes, ...presenceEventTypes])(
    'shows an example of %s that fits its headers and its payload',
    (type) => {
      const ajv = new Ajv({ strict: false, validateSchema: false });
      addFormats.default(ajv);
      ajv.addSchema(source, 'asyncapi');
      const { messages } = source.components as {
        messages: Record<string, { examples: [{ headers: unknown; payload: unknown }] }>;
      };
      const [example] = messages[type]?.examples ?? [];
      const faultsAt = (path: string, value: unknown) => {
        ajv.validate({ $ref: `asyncapi#/components/${path}` }, value);
        return ajv.errors ?? [];
      };
      expect(faultsAt('messageTraits/cloudEvent/headers', example?.headers)).toEqual([]);
      expect(faultsAt(`messages/${type}/payload`, example?.payload)).toEqual([]);
    },
  );
});

describe("the events' reference", () => {
  const reference = eventsReference();

  it('says of those events alone that they have no data that take none', () => {
    const withoutData = reference
      .split('\n### ')
      .filter((section) => section.includes('\nNo data.\n'))
      .map((section) => /^`(.+)`/.exec(section)?.[1]);
    expect(withoutData).toEqual(['room.locked', 'room.unlocked']);
  });

  it.each(presenceEventTypes)('shows %s with the source that it has', (type) => {
    expect(exampleOf(`presence-events/${type}`)).toMatchObject({ source: presenceSource });
  });

  it('shows participant.removed with the one reason that it has', () => {
    expect(exampleOf('presence-events/participant.removed')).toMatchObject({ data: { reason: 'PARTICIPANT_REMOVED' } });
  });

  it('leads to the value whose fields an event has, and marks what may be left out of one', () => {
    expect(reference).toContain('Fields: those of [MemberData](#memberdata).');
    expect(reference).toContain('{ mode: `multi`, max?: integer from 1 to 100 }');
  });
});

describe('OpenAPI', () => {
  const document = openApi();

  it('is valid', async () => {
    const result = await new Validator().validate(structuredClone(document));
    expect(result.errors ?? []).toEqual([]);
    expect(result.valid).toBe(true);
  });

  it('has each route once, with an operation id of its own', () => {
    expect(new Set(routes.map(({ operationId }) => operationId)).size).toBe(routes.length);
    expect(new Set(routes.map(({ method, path }) => `${method} ${path}`)).size).toBe(routes.length);
  });

  it.each(routes)('$operationId names its path parameters and tells every status that it may answer', (route) => {
    const inPath = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    expect(Object.keys(route.pathParameters ?? {})).toEqual(inPath);
    const operation = (document.paths as Record<string, Record<string, { responses: object }>>)[route.path]?.[
      route.method
    ];
    const statuses = [
      route.answer.status,
      ...[...route.problems, ...commonProblems].map((code) => problemStatus[code]),
    ];
    expect(Object.keys(operation?.responses ?? {})).toEqual([...new Set(statuses)].sort().map(String));
  });

  it('takes what the event route takes in binary mode: long subjects as they are encoded, and no body without data', () => {
    const event = { specversion: '1.0', id: '1', source: '/s', type: 'room.locked', subject: '\u00e9'.repeat(128) };
    const attributes = Object.entries(event).map(([name, text]) => [`ce-${name}`, encodeURIComponent(text)] as const);
    const headers = Object.fromEntries(attributes);
    expect(readRoomEvent(fromHttpBinary(headers, undefined)).kind).toBe('event');
    type Operation = { parameters: { name: string; schema: object }[]; requestBody: object };
    const { '/api/realtime/events': path } = document.paths as { '/api/realtime/events': { post: Operation } };
    const { parameters, requestBody } = path.post;
    const ajv = new Ajv2020({ strict: false });
    for (const { name, schema } of parameters)
      if (headers[name] !== undefined) expect(ajv.validate(schema, headers[name]), name).toBe(true);
    expect(requestBody).toMatchObject({ required: false });
  });

  it('shows an example of every problem that fits the schema of problems', () => {
    const ajv = new Ajv2020({ strict: true });
    addFormats.default(ajv);
    const validate = ajv.compile(jsonSchemas()['http/Problem.json'] ?? {});
    const { examples } = document.components as { examples: Record<string, { value: unknown }> };
    expect(Object.keys(examples)).toEqual(problemCodes);
    for (const { value } of Object.values(examples))
      expect(validate(value), JSON.stringify(validate.errors)).toBe(true);
  });
});
