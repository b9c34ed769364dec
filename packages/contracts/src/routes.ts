import { z } from 'zod';
import { contextAttributes, mediaTypes } from './cloud-event.ts';
import {
  BanRequest,
  EventsAccepted,
  ModerationAccepted,
  ModerationRequest,
  ParticipantsView,
  RoomSight,
  RoomView,
  UnbanQuery,
} from './http-bodies.ts';
import { Identity, RoomId, Sid, UserId } from './ids.ts';
import { JoinRequest, JoinResponse } from './join.ts';
import type { ProblemCode } from './problems.ts';
import { roomEventTypes, structuredRoomEvent } from './room-events.ts';

/** A route as the OpenAPI document tells it. */
export interface Route {
  readonly operationId: string;
  readonly method: 'get' | 'post' | 'delete';
  /** With `{name}` for every entry of `pathParameters`. */
  readonly path: string;
  readonly summary: string;
  readonly description: string;
  /** Empty for a person's token, else a service's token must have one of them; `none` where the body holds a token. */
  readonly scopes: readonly ('realtime:publish' | 'realtime:ops')[] | 'livekit' | 'none';
  readonly pathParameters?: Readonly<Record<string, z.ZodType>>;
  readonly query?: Readonly<Record<string, z.ZodType>>;
  readonly headers?: Readonly<Record<string, z.ZodType>>;
  readonly body?: { readonly isRequired: boolean; readonly content: Readonly<Record<string, z.ZodType>> };
  readonly answer: {
    readonly status: number;
    readonly description: string;
    readonly headers?: Readonly<Record<string, z.ZodType>>;
    readonly body?: z.ZodType;
    /** JSON, where it is not said. */
    readonly mediaType?: string;
  };
  /** The codes of its own; what every route may answer is in `commonProblems`. */
  readonly problems: readonly ProblemCode[];
}

/** Any route may refuse with these. */
export const commonProblems = [
  'malformed_request',
  'unauthenticated',
  'body_too_large',
  'unsupported_media_type',
  'invalid_request',
  'rate_limited',
  'headers_too_large',
  'internal',
  'store_unavailable',
  'overloaded',
] as const satisfies readonly ProblemCode[];

const [firstEvent, ...otherEvents] = roomEventTypes;

/** A room event in CloudEvents' structured mode. */
const RoomCloudEvent = z
  .discriminatedUnion('type', [structuredRoomEvent(firstEvent), ...otherEvents.map(structuredRoomEvent)])
  .meta({ id: 'RoomEvent', description: 'A CloudEvent whose `data` fits its `type`.' });

/** What keeps a member from seeing or moderating a room. */
const memberProblems = [
  'banned',
  'user_disabled',
  'room_not_found',
  'room_closed',
  'projection_stale',
] as const satisfies readonly ProblemCode[];

const moderationAnswer = {
  status: 202,
  description: 'The fact is in the log, at this position; it takes effect within moments.',
  body: ModerationAccepted,
};
const moderationBody = { isRequired: false, content: { 'application/json': ModerationRequest } };

/** The routes that the api serves, and no others. */
export const routes: readonly Route[] = [
  {
    operationId: 'joinRoom',
    method: 'post',
    path: '/api/realtime/rooms/{roomId}/join',
    summary: 'Ask for a LiveKit token',
    description:
      'Answers whether the caller may enter this room right now, and if so with a LiveKit token that opens one connection. ' +
      "The body is LiveKit's TokenSource request with three fields of ours; all of it is optional, and nothing of it is trusted.",
    scopes: [],
    pathParameters: { roomId: RoomId },
    body: { isRequired: false, content: { 'application/json': JoinRequest } },
    answer: { status: 200, description: 'The caller may enter.', body: JoinResponse },
    problems: [
      'banned',
      'user_disabled',
      'forbidden',
      'room_not_found',
      'device_conflict',
      'room_full',
      'room_closed',
      'room_locked',
      'room_not_open',
      'projection_stale',
      'livekit_unavailable',
    ],
  },
  {
    operationId: 'readRoom',
    method: 'get',
    path: '/api/realtime/rooms/{roomId}',
    summary: 'See a room',
    description: 'For its members, inside or not, whether it can be entered at the moment or not.',
    scopes: [],
    pathParameters: { roomId: RoomId },
    answer: { status: 200, description: 'The room, as the caller may see it.', body: RoomView },
    problems: memberProblems,
  },
  {
    operationId: 'readParticipants',
    method: 'get',
    path: '/api/realtime/rooms/{roomId}/participants',
    summary: 'See who is inside',
    description:
      'For members of the room: the people inside, in the order in which they came, at most 1,000. Machines and hidden ' +
      'people are not among them. A person with two devices is there twice.',
    scopes: [],
    pathParameters: { roomId: RoomId },
    answer: { status: 200, description: 'The people inside.', body: ParticipantsView },
    problems: memberProblems,
  },
  {
    operationId: 'watchRoom',
    method: 'get',
    path: '/api/realtime/rooms/{roomId}/events',
    summary: 'Watch a room',
    description:
      'Server-sent events for members. `room`: the room and the people inside (`RoomSight`), at once and whenever something ' +
      'has changed. With the `Last-Event-ID` of the newest one nothing is sent until then. `end`: the caller may not see ' +
      'the room any more, `data.code` says why. A stream ends after 5 minutes, or with its token or login where that is ' +
      'sooner: come again, with a token of today.',
    scopes: [],
    pathParameters: { roomId: RoomId },
    headers: { 'Last-Event-ID': z.string().max(64).describe('The id of the newest event that the caller has.') },
    answer: { status: 200, description: 'The events.', body: RoomSight, mediaType: 'text/event-stream' },
    problems: memberProblems,
  },
  {
    operationId: 'kickParticipant',
    method: 'post',
    path: '/api/realtime/rooms/{roomId}/participants/{identity}/kick',
    summary: 'End one session',
    description:
      'Hosts and moderators end the session that this identity has now, and no later one: the person may come again (a ' +
      'ban of `join` keeps somebody out). The reason is told to the person. Nobody moderates a higher role.',
    scopes: [],
    pathParameters: { roomId: RoomId, identity: Identity },
    body: moderationBody,
    answer: moderationAnswer,
    problems: [...memberProblems, 'forbidden', 'participant_not_found'],
  },
  {
    operationId: 'muteTrack',
    method: 'post',
    path: '/api/realtime/rooms/{roomId}/participants/{identity}/tracks/{trackSid}/mute',
    summary: 'Mute one track',
    description:
      'Hosts and moderators mute a track of the session that this identity has now. The person may unmute it again (a ban ' +
      'of `publish_audio` or `publish_video` keeps it silent). A track that is gone by then changes nothing.',
    scopes: [],
    pathParameters: { roomId: RoomId, identity: Identity, trackSid: Sid },
    body: moderationBody,
    answer: moderationAnswer,
    problems: [...memberProblems, 'forbidden', 'participant_not_found'],
  },
  {
    operationId: 'banUser',
    method: 'post',
    path: '/api/realtime/rooms/{roomId}/bans',
    summary: 'Take one privilege from a person',
    description:
      'For so many seconds, by the clock of the database, or for good; a later ban of the same privilege replaces it. ' +
      '`join` ends the sessions and keeps the person out; the others take rights from live sessions, which get them back ' +
      'when the ban ends. Also of people who are no members. Nobody bans a higher role, or themselves.',
    scopes: [],
    pathParameters: { roomId: RoomId },
    body: { isRequired: true, content: { 'application/json': BanRequest } },
    answer: moderationAnswer,
    problems: [...memberProblems, 'forbidden'],
  },
  {
    operationId: 'unbanUser',
    method: 'delete',
    path: '/api/realtime/rooms/{roomId}/bans/{userId}',
    summary: 'Give one privilege back',
    description: 'Lifts the ban of that privilege, whoever set it. Where there is none, nothing changes.',
    scopes: [],
    pathParameters: { roomId: RoomId, userId: UserId },
    query: UnbanQuery.shape,
    answer: moderationAnswer,
    problems: [...memberProblems, 'forbidden'],
  },
  {
    operationId: 'publishRoomEvents',
    method: 'post',
    path: '/api/realtime/events',
    summary: 'Publish room events',
    description:
      'CloudEvents over HTTP: structured, batch (at most 1,000) or binary (`ce-*` headers). All or nothing: when any event is ' +
      'bad, none is appended, and the answer names the first hundred faults. After a 503 send the same events with ' +
      'the same ids again; repeats change nothing. Two events of a batch with one id must be the same fact. ' +
      'Facts about facts (`participant.kick_requested`, ' +
      '`track.mute_requested`, `dead_letter.*`) need the scope `realtime:ops`, all others `realtime:publish`.',
    scopes: ['realtime:publish', 'realtime:ops'],
    // No bounds: percent-encoded, a value is up to three times as long as the attribute may be.
    headers: Object.fromEntries(
      contextAttributes
        .filter((name) => name !== 'datacontenttype')
        .map((name) => [`ce-${name}`, z.string().describe('Binary mode only, percent-encoded.')]),
    ),
    body: {
      isRequired: false,
      content: {
        [mediaTypes.structured]: RoomCloudEvent,
        [mediaTypes.batch]: z.array(RoomCloudEvent).min(1).max(1000),
        'application/json': z
          .unknown()
          .describe('Binary mode: the `data` alone, if any; its schema follows from the header `ce-type`.'),
      },
    },
    answer: { status: 202, description: 'All events are in the log.', body: EventsAccepted },
    problems: ['forbidden'],
  },
  {
    operationId: 'askGate',
    method: 'get',
    path: '/api/realtime/gate',
    summary: "Ask whether somebody may open LiveKit's signalling",
    description:
      'For reverse proxies before LiveKit, never for clients: may whoever shows this LiveKit token enter its room now? ' +
      'The token is in `Authorization`, else in `access_token` of the original URI. 204 has a fresh token with the rights ' +
      'of today, which the proxy sends on in place of the one that was shown. A path of the signalling appended to this ' +
      'one is taken too, and answered with 200: that is how Envoy asks.',
    scopes: 'livekit',
    headers: {
      'X-Original-URI': z
        .string()
        .describe(
          'What the client asked of LiveKit, as it was sent; set by the proxy alone. The name is configurable. With all other headers it must fit the `MAX_HEADER_BYTES` of the api.',
        ),
    },
    answer: {
      status: 204,
      description: 'The person may enter, and the room is there.',
      headers: { Authorization: z.string().describe('`Bearer` and the fresh token.') },
    },
    problems: ['forbidden', 'projection_stale', 'livekit_unavailable'],
  },
  {
    operationId: 'endLogin',
    method: 'post',
    path: '/api/realtime/oidc/backchannel-logout',
    summary: 'Tell that a login is over',
    description:
      'OpenID Connect Back-Channel Logout 1.0, for the identity provider: the calls of that login end, and its tokens count ' +
      'no more. A token without `sid` ends the logins of its `sub` that are inside a call. 503 when the event log is away: ' +
      'the logout is kept and will be carried out; or when its key, or whom it is about, cannot be known: tell it again.',
    scopes: 'none',
    body: {
      isRequired: true,
      content: {
        'application/x-www-form-urlencoded': z.object({
          logout_token: z.string().max(16_384).describe('Signed by the issuer, for one of the clients that count.'),
        }),
      },
    },
    answer: { status: 200, description: 'The end of the login is in the log.' },
    problems: ['invalid_logout_token'],
  },
];
