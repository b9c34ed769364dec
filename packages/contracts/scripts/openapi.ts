import type { z } from 'zod';
import manifest from '../package.json' with { type: 'json' };
import {
  Problem,
  type ProblemCode,
  problemAdvice,
  problemCodes,
  problemHeader,
  problemStatus,
  problemTitle,
  problemType,
} from '../src/index.ts';
import { commonProblems, type Route, routes } from '../src/routes.ts';
import { type JsonObject, schemaConverter } from './json-schema.ts';

const exampleTraceId = '4bf92f3577b34da6a3ce929d0e0e4736';

const problemExample = (code: ProblemCode): JsonObject => ({
  summary: problemAdvice[code],
  value: {
    type: problemType(code),
    title: problemTitle[code],
    status: problemStatus[code],
    code,
    detail: problemAdvice[code],
    trace_id: exampleTraceId,
    ...(code === 'invalid_request' ? { errors: [{ path: '/device_id', message: 'Invalid string' }] } : {}),
    ...(code === 'room_not_open' ? { opens_at: '2026-03-01T12:00:00Z' } : {}),
  },
});

const headerDocs: JsonObject = {
  'Retry-After': { description: 'Seconds after which to ask again.', schema: { type: 'integer', minimum: 0 } },
  'WWW-Authenticate': { description: 'Always the same challenge.', schema: { type: 'string' } },
  Allow: { description: 'The methods that the route takes.', schema: { type: 'string' } },
};

/** One response per status, with an example per code. */
const problemResponses = (codes: readonly ProblemCode[]): JsonObject => {
  const byStatus = Map.groupBy(codes, (code) => problemStatus[code]);
  const responses = [...byStatus].sort(([one], [other]) => one - other);
  return Object.fromEntries(
    responses.map(([status, sameStatus]) => {
      const headers = sameStatus.flatMap((code) => problemHeader[code] ?? []);
      return [
        String(status),
        {
          description: sameStatus.map((code) => `\`${code}\`: ${problemTitle[code]}`).join(' '),
          headers: Object.fromEntries(headers.map((name) => [name, { $ref: `#/components/headers/${name}` }])),
          content: {
            'application/problem+json': {
              schema: { $ref: '#/components/schemas/Problem' },
              examples: Object.fromEntries(sameStatus.map((code) => [code, { $ref: `#/components/examples/${code}` }])),
            },
          },
        },
      ];
    }),
  );
};

const securityOf = (scopes: Route['scopes']): JsonObject[] => {
  if (scopes === 'none') return [];
  if (scopes === 'livekit') return [{ livekit: [] }, {}];
  return scopes.length === 0 ? [{ user: [] }] : scopes.map((scope) => ({ service: [scope] }));
};

const operation = (route: Route, convert: (schema: z.ZodType) => JsonObject): JsonObject => {
  const parameters = (
    place: 'path' | 'query' | 'header',
    schemas: Readonly<Record<string, z.ZodType>> = {},
  ): JsonObject[] =>
    Object.entries(schemas).map(([name, schema]) => ({
      name,
      in: place,
      required: place !== 'header',
      schema: convert(schema),
    }));
  const content = (schemas: Readonly<Record<string, z.ZodType>>): JsonObject =>
    Object.fromEntries(Object.entries(schemas).map(([mediaType, schema]) => [mediaType, { schema: convert(schema) }]));
  const headersOf = (schemas: Readonly<Record<string, z.ZodType>>): JsonObject =>
    Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, { schema: convert(schema) }]));
  const { operationId, summary, description, scopes, body, answer } = route;
  return {
    operationId,
    summary,
    description,
    security: securityOf(scopes),
    parameters: [
      ...parameters('path', route.pathParameters),
      ...parameters('query', route.query),
      ...parameters('header', route.headers),
    ],
    ...(body && { requestBody: { required: body.isRequired, content: content(body.content) } }),
    responses: {
      [answer.status]: {
        description: answer.description,
        ...(answer.headers && { headers: headersOf(answer.headers) }),
        ...(answer.body && { content: content({ [answer.mediaType ?? 'application/json']: answer.body }) }),
      },
      ...problemResponses([...route.problems, ...commonProblems]),
    },
  };
};

/** The OpenAPI 3.1 document of the routes that are served. */
export const openApi = (): JsonObject => {
  const { components, convert } = schemaConverter('draft-2020-12');
  convert(Problem);
  const paths = Map.groupBy(routes, ({ path }) => path);
  return {
    openapi: '3.1.0',
    info: {
      title: 'realtime-service',
      version: manifest.version,
      summary: 'May this person be in this room, and with which rights, right now?',
      license: { name: manifest.license, identifier: manifest.license },
    },
    servers: [{ url: '/' }],
    paths: Object.fromEntries(
      [...paths].map(([path, ofPath]) => [
        path,
        Object.fromEntries(ofPath.map((route) => [route.method, operation(route, convert)])),
      ]),
    ),
    components: {
      schemas: components,
      headers: headerDocs,
      examples: Object.fromEntries(problemCodes.map((code) => [code, problemExample(code)])),
      securitySchemes: {
        user: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description: 'The access token of a person, from Keycloak.',
        },
        service: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description: 'The access token of a service; its scopes say what it may.',
        },
        livekit: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description: "A LiveKit token, as a client shows it at LiveKit's door.",
        },
      },
    },
  };
};
