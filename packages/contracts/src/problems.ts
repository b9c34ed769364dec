import { z } from 'zod';

/** The closed list of problem codes and the HTTP status of each. */
export const problemStatus = {
  unauthenticated: 401,
  banned: 403,
  user_disabled: 403,
  forbidden: 403,
  room_not_found: 404,
  participant_not_found: 404,
  route_not_found: 404,
  method_not_allowed: 405,
  device_conflict: 409,
  room_full: 409,
  room_closed: 410,
  body_too_large: 413,
  unsupported_media_type: 415,
  malformed_request: 400,
  invalid_logout_token: 400,
  invalid_request: 422,
  room_locked: 423,
  room_not_open: 425,
  rate_limited: 429,
  headers_too_large: 431,
  projection_stale: 503,
  livekit_unavailable: 503,
  store_unavailable: 503,
  overloaded: 503,
  internal: 500,
} as const;

export type ProblemCode = keyof typeof problemStatus;
export const problemCodes = Object.keys(problemStatus) as [ProblemCode, ...ProblemCode[]];

/** One sentence per code, the same for every caller: what an attacker could use is not in it. */
export const problemTitle: Readonly<Record<ProblemCode, string>> = {
  unauthenticated: 'Authentication is required.',
  banned: 'You are banned from this room.',
  user_disabled: 'This account is disabled.',
  forbidden: 'You may not do this.',
  room_not_found: 'There is no such room for you.',
  participant_not_found: 'There is no such participant in this room.',
  route_not_found: 'There is no such route.',
  method_not_allowed: 'This route does not take that method.',
  device_conflict: 'You are in this room with another device.',
  room_full: 'The room is full.',
  room_closed: 'The room is closed.',
  body_too_large: 'The request body is too large.',
  unsupported_media_type: 'The content type is not supported.',
  malformed_request: 'The request could not be read.',
  invalid_logout_token: 'The logout token does not count.',
  invalid_request: 'The request is not valid.',
  room_locked: 'The room is locked.',
  room_not_open: 'The room is not open yet.',
  rate_limited: 'Too many requests.',
  headers_too_large: 'The request headers are too large.',
  projection_stale: 'The state of this room is not current.',
  livekit_unavailable: 'The media server is not available.',
  store_unavailable: 'The service is not available.',
  overloaded: 'The service is overloaded.',
  internal: 'Something went wrong.',
};

/** What a client can do about it. */
export const problemAdvice: Readonly<Record<ProblemCode, string>> = {
  unauthenticated: 'Get a fresh access token and ask again; the answer never says what was wrong with the token.',
  banned: 'Show it; asking again changes nothing before the ban ends.',
  user_disabled: 'Show it; the account is disabled in every room.',
  forbidden: "Show it; the caller's role or scope does not allow this, or not towards this person.",
  room_not_found: 'Show it; the room is unknown, or the caller is no member of it: nobody outside is told which.',
  participant_not_found: 'Read the participants again: whoever it was has left.',
  route_not_found: 'Correct the URL.',
  method_not_allowed: 'Use the method that the header `Allow` names.',
  device_conflict:
    'Leave with another device; or, where a person has one device, offer to take over: ask again with `take_over`.',
  room_full: 'Ask again after `Retry-After`.',
  room_closed: 'Show it; the room was closed for good, or its time is over.',
  body_too_large: 'Send less, or in several requests.',
  unsupported_media_type: 'Send one of the content types that the route takes.',
  malformed_request: 'Correct the request; it is not HTTP or JSON that every reader understands alike.',
  invalid_logout_token:
    "Nothing was ended; the reason is in this service's log. Check the provider's client, its keys and its clock.",
  invalid_request: 'Correct what `errors` names.',
  room_locked: 'Show it; ask again when a moderator has unlocked the room.',
  room_not_open: 'Ask again at `opens_at`.',
  rate_limited: 'Ask again after `Retry-After`.',
  headers_too_large: 'Send a smaller token or fewer cookies.',
  projection_stale: 'Ask again after `Retry-After`: the facts of this room have not all arrived yet.',
  livekit_unavailable: 'Ask again after `Retry-After`.',
  store_unavailable: 'Ask again after `Retry-After`.',
  overloaded: 'Ask again after `Retry-After`.',
  internal: 'Report it with its `trace_id`.',
};

/** The header that tells more, on the codes that have one. */
export const problemHeader: Readonly<Partial<Record<ProblemCode, 'Retry-After' | 'WWW-Authenticate' | 'Allow'>>> = {
  unauthenticated: 'WWW-Authenticate',
  method_not_allowed: 'Allow',
  room_full: 'Retry-After',
  room_not_open: 'Retry-After',
  rate_limited: 'Retry-After',
  projection_stale: 'Retry-After',
  livekit_unavailable: 'Retry-After',
  store_unavailable: 'Retry-After',
  overloaded: 'Retry-After',
};

/** Where a request is wrong: a JSON-pointer-like path and what was expected there. */
export const ProblemFault = z.object({ path: z.string(), message: z.string() }).meta({ id: 'ProblemFault' });
export type ProblemFault = z.infer<typeof ProblemFault>;

/** RFC 9457. `errors` on 422 and 400; `opens_at` on `room_not_open`. */
export const Problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    code: z.enum(problemCodes),
    detail: z.string(),
    trace_id: z.string(),
    errors: z.array(ProblemFault).optional(),
    opens_at: z.string().optional(),
  })
  .meta({ id: 'Problem' });
export type Problem = z.infer<typeof Problem>;

/** The `type` of a problem document. */
export const problemType = (code: ProblemCode): string => `urn:realtime-service:problem:${code}`;
