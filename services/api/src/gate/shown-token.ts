import type { IncomingHttpHeaders } from 'node:http';
import { ProblemError } from '../problem.ts';

/** Where LiveKit's clients open their signalling (livekit pkg/service/rtcservice.go), and nothing else of LiveKit's. */
export const signallingPaths = ['/rtc', '/rtc/v1', '/rtc/validate', '/rtc/v1/validate'];

/** Why a proxy's question is refused before any token is looked at. For operators only. */
export type UnreadableReason =
  | 'no_original_uri'
  | 'original_uri'
  | 'path'
  | 'query'
  | 'several_tokens'
  | 'no_token'
  | 'malformed';

const refused = (reason: UnreadableReason): ProblemError => new ProblemError('unauthenticated', { reason });

/** As sent on the wire: no blank, so no second header of that name either, which Node would join by ", ". */
const requestTarget = /^\/[\x21-\x7e]*$/;
/** LiveKit's parser drops such a pair and takes the next one of that name; ours does not. */
const ambiguousQuery = /;|%(?![0-9a-f]{2})/i;
const compactToken = /^[\w-]+\.[\w-]+\.[\w-]+$/;
const bearer = 'Bearer ';

export interface GateAddress {
  /** Lower case: the one header in which the proxy tells what its client asked for. */
  readonly uriHeader: string;
  /** Before LiveKit's own paths, where clients reach it: empty, or as `/livekit`. */
  readonly pathPrefix: string;
}

/** The query of the client's request. @throws {ProblemError} 401 where it is not one for LiveKit's signalling */
const queryOf = (headers: IncomingHttpHeaders, { uriHeader, pathPrefix }: GateAddress): URLSearchParams => {
  const uri = headers[uriHeader];
  if (uri === undefined) throw refused('no_original_uri');
  if (typeof uri !== 'string' || !requestTarget.test(uri) || uri.includes('#')) throw refused('original_uri');
  const end = uri.indexOf('?');
  const path = end < 0 ? uri : uri.slice(0, end);
  if (!signallingPaths.some((known) => path === pathPrefix + known)) throw refused('path');
  const query = end < 0 ? '' : uri.slice(end + 1);
  if (ambiguousQuery.test(query)) throw refused('query');
  return new URLSearchParams(query);
};

/**
 * The token that a client shows at LiveKit's door, by LiveKit's own rule: the header `Authorization` before the query's
 * `access_token` (livekit pkg/service/auth.go). What two readers could read differently is refused.
 * @throws {ProblemError} 401, and 403 for `publish`, which gives one token any number of sessions beside its own
 */
export const readShownToken = (headers: IncomingHttpHeaders, address: GateAddress): string => {
  const query = queryOf(headers, address);
  const inQuery = query.getAll('access_token');
  if (inQuery.length > 1) throw refused('several_tokens');
  if (query.has('publish')) throw new ProblemError('forbidden', { reason: 'publish' });
  const { authorization = '' } = headers;
  if (authorization !== '' && !authorization.startsWith(bearer)) throw refused('malformed');
  const token = authorization === '' ? inQuery[0] : authorization.slice(bearer.length);
  if (token === undefined || token === '') throw refused('no_token');
  if (!compactToken.test(token)) throw refused('malformed');
  return token;
};
