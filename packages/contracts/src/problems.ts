import { z } from 'zod';

/** The closed list of problem codes and the HTTP status of each. */
export const problemStatus = {
  unauthenticated: 401,
  banned: 403,
  user_disabled: 403,
  forbidden: 403,
  room_not_found: 404,
  route_not_found: 404,
  method_not_allowed: 405,
  device_conflict: 409,
  room_full: 409,
  room_closed: 410,
  body_too_large: 413,
  unsupported_media_type: 415,
  malformed_request: 400,
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
  forbidden: 'Your role does not allow this.',
  room_not_found: 'There is no such room for you.',
  route_not_found: 'There is no such route.',
  method_not_allowed: 'This route does not take that method.',
  device_conflict: 'You are in this room with another device.',
  room_full: 'The room is full.',
  room_closed: 'The room is closed.',
  body_too_large: 'The request body is too large.',
  unsupported_media_type: 'The content type is not supported.',
  malformed_request: 'The request could not be read.',
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
    detail: z.string().optional(),
    trace_id: z.string(),
    errors: z.array(ProblemFault).optional(),
    opens_at: z.string().optional(),
  })
  .meta({ id: 'Problem' });
export type Problem = z.infer<typeof Problem>;

/** The `type` of a problem document. */
export const problemType = (code: ProblemCode): string => `urn:realtime-service:problem:${code}`;
