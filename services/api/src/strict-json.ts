import type { ProblemFault } from '@realtime-service/contracts';
import type { FastifyRequest } from 'fastify';
import { ProblemError } from './problem.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true });
const maxDepth = 64;
const stringInJson = /"(?:[^"\\]|\\.)*"(\s*:)?/g;

const malformed = (reason: string, fault: ProblemFault, cause?: unknown): ProblemError =>
  new ProblemError('malformed_request', { reason, faults: [fault], cause });

/** How many members all objects have together. @throws {ProblemError} for what no reader of ours should meet */
const countMembers = (value: unknown, path = '', depth = 0): number => {
  if (typeof value !== 'object' || value === null) return 0;
  if (depth === maxDepth) throw malformed('json_too_deep', { path, message: `is deeper than ${maxDepth} levels` });
  const isList = Array.isArray(value);
  let members = 0;
  // No path is written for what has no members itself: those of half a million numbers take half a second.
  for (const [name, member] of isList ? value.entries() : Object.entries(value)) {
    if (name === '__proto__')
      throw malformed('json_proto', { path: `${path}/${name}`, message: 'is no name for a member' });
    if (!isList) members += 1;
    if (typeof member === 'object') members += countMembers(member, `${path}/${name}`, depth + 1);
  }
  return members;
};

/** In valid JSON a string before a colon is a member's name, and nothing else is. */
const countNames = (text: string): number => {
  let names = 0;
  for (const [, colon] of text.matchAll(stringInJson)) if (colon !== undefined) names += 1;
  return names;
};

/**
 * The parser of every JSON body: JSON that every reader understands alike (RFC 8259, 4; RFC 7493), in UTF-8 without
 * broken bytes, no name twice in an object, no `__proto__`, at most 64 levels. An empty body is no body.
 * @throws {ProblemError}
 */
export const parseJsonBody = async (request: FastifyRequest, body: Buffer): Promise<unknown> => {
  const { 'content-encoding': encoding } = request.headers;
  if (encoding !== undefined && encoding !== 'identity')
    throw new ProblemError('unsupported_media_type', { reason: 'content_encoding' });
  if (body.length === 0) return undefined;
  let text: string;
  let value: unknown;
  try {
    text = utf8.decode(body);
    value = JSON.parse(text);
  } catch (cause) {
    throw malformed('not_json', { path: '', message: 'must be JSON in UTF-8' }, cause);
  }
  const members = countMembers(value);
  if (members > 0 && members !== countNames(text))
    throw malformed('json_duplicate_name', { path: '', message: 'must not have a name twice in an object' });
  return value;
};
