import { LogUnavailableError, maxRecordBytes, type NewRecord, RecordTooLargeError } from '@realtime-service/event-log';
import { type Facts, type Member, type RoomFacts, type Seats, unknownRoom } from '@realtime-service/room-model';
import type { FactsAnswer, KeptRecord, Login, PresentPerson } from '@realtime-service/room-store';
import { createLogger } from '@realtime-service/telemetry';
import type { FastifyInstance } from 'fastify';
import { vi } from 'vitest';
import { type ApiDependencies, createApp } from '../src/app.ts';
import { ApiSettings } from '../src/config.ts';
import { createTokenSigner } from '../src/join/sign-token.ts';
import { createKeySet } from '../src/key-set.ts';
import { type ApiMetrics, createApiMetrics } from '../src/metrics.ts';
import {
  answerKeys,
  createSigningKey,
  issuer,
  type KeyServer,
  type SigningKey,
  signToken,
  startKeyServer,
} from './identity-provider.ts';

export const livekitKey = { apiKey: 'devkey', secret: '0123456789abcdef0123456789abcdef' };

export const environment = {
  DATABASE_URL: 'postgres://api@127.0.0.1/realtime',
  OIDC_ISSUER: issuer,
  LIVEKIT_URL: 'wss://rtc.example.test',
  LIVEKIT_KEYS: `${livekitKey.apiKey}: ${livekitKey.secret}`,
  CORS_ORIGINS: 'https://app.example.test',
  // A machine that is busy with other things must not change an answer.
  MAX_EVENT_LOOP_DELAY_MS: '60000',
};

/** Why a token was refused, as the log line says it: the reason, and what of the token it names. */
export const toldBy = ({ reason, unfit = [] }: { reason: string; unfit?: readonly string[] }): string =>
  [reason, ...unfit].join(' ');

/** A member of an open room, unless said otherwise; `null` for a member or a room means that there is none. */
export interface Situation {
  readonly room?: Partial<RoomFacts> | null;
  readonly member?: Partial<Member> | null;
  readonly facts?: Partial<Facts>;
  readonly isRoomLive?: boolean;
  /** By the database's clock. */
  readonly nowMs?: number;
}

const knownRooms = new Map<string, RoomFacts>();
/** The same object for the same room, as the store gives it. */
const sameRoom = (room: RoomFacts): RoomFacts => {
  const text = JSON.stringify(room);
  const known = knownRooms.get(text) ?? room;
  knownRooms.set(text, known);
  return known;
};

const answerOf = (
  roomId: string,
  { room, member, facts, isRoomLive = false, nowMs = Date.now() }: Situation,
): FactsAnswer => ({
  facts: {
    room: room === null ? null : sameRoom({ ...unknownRoom(roomId), state: 'open', ...room }),
    member:
      member === null ? null : { role: 'speaker', displayName: 'Ann', permissions: null, isRemoved: false, ...member },
    bans: [],
    user: null,
    isLoginEnded: false,
    doubt: null,
    ownSessions: [],
    seats: null,
    ...facts,
  },
  isRoomLive,
  nowMs,
});

/** Since ever, unless said. */
type LiveLogin = Login & { readonly joinedAtMs?: number };

export interface TestApi {
  readonly app: FastifyInstance;
  readonly key: SigningKey;
  readonly keyServer: KeyServer;
  /** Appended through the event route. */
  readonly appended: NewRecord[];
  /** Logouts that the log did not take. */
  readonly kept: KeptRecord[];
  /** Logins that are inside a call. */
  readonly liveLogins: LiveLogin[];
  /** Rooms that LiveKit was asked to make. */
  readonly made: string[];
  /** The agents that the desk asked for with the last of them. */
  readonly agents: { names: readonly string[] };
  /** Logged, as lines of JSON. */
  readonly lines: string[];
  readonly metrics: ApiMetrics;
  /** What the facts reader finds, by room and user. Nothing, where not set. */
  readonly situations: Map<string, Situation>;
  /** By their ids, whosever they are. */
  readonly endedLogins: Set<string>;
  /** Who is inside, by room; in the order in which they came. */
  readonly present: Map<string, PresentPerson[]>;
  /** Failures to stage. */
  readonly failing: { store: boolean; seats: boolean; log: boolean; livekit: boolean };
  /** How often facts were asked for, and what their answers wait for. */
  readonly facts: { asked: number; answer: Promise<void> };
  /** People whose own partition is too old, beside rooms that are not. */
  readonly freshness: { isCurrent: boolean; outdatedPeople: readonly string[]; reaches: boolean };
  readonly seatsTaken: { -readonly [K in keyof Seats]: Seats[K] };
  readonly token: (changes?: Record<string, unknown>, header?: Record<string, unknown>) => Promise<string>;
  readonly close: () => Promise<void>;
}

export const at = (roomId: string, userId = 'u-7'): string => JSON.stringify([roomId, userId]);

/** The real app on fakes at its seams: facts (unless there is a store), log and LiveKit. Keys are fetched over HTTP. */
export const startTestApi = async (
  changes: Record<string, string> = {},
  ownStore?: ApiDependencies['store'],
): Promise<TestApi> => {
  const settings = ApiSettings.parse({ ...environment, ...changes });
  const key = await createSigningKey('k1');
  const keyServer = await startKeyServer(answerKeys(key.jwk));
  const lines: string[] = [];
  const logger = createLogger({
    service: 'api',
    level: 'debug',
    destination: { write: (line) => void lines.push(line) },
  });
  const keys = createKeySet({ url: keyServer.url, logger });
  const state = {
    appended: [] as NewRecord[],
    kept: [] as KeptRecord[],
    liveLogins: [] as LiveLogin[],
    made: [] as string[],
    agents: { names: [] as readonly string[] },
    situations: new Map<string, Situation>(),
    endedLogins: new Set<string>(),
    present: new Map<string, PresentPerson[]>(),
    facts: { asked: 0, answer: Promise.resolve() },
    failing: { store: false, seats: false, log: false, livekit: false },
    freshness: { isCurrent: true, outdatedPeople: [] as readonly string[], reaches: true },
    seatsTaken: { takenByOthers: 0, ownOtherDevices: 0, ownUnusedTokens: 0, isHeld: false, isReserved: false },
  };
  const readFacts: ApiDependencies['store']['readFacts'] = async ({ roomId, userId, loginId }) => {
    state.facts.asked += 1;
    await state.facts.answer;
    if (state.failing.store) throw new Error('the database is away');
    const { facts, ...rest } = answerOf(
      roomId,
      state.situations.get(at(roomId, userId)) ?? { room: null, member: null },
    );
    const isLoginEnded = facts.isLoginEnded || (loginId !== null && state.endedLogins.has(loginId));
    return { ...rest, facts: { ...facts, isLoginEnded } };
  };
  const metrics = createApiMetrics();
  const app = await createApp({
    settings,
    keys,
    watch: { lookEveryMs: 20, maxStreams: 3, maxStreamsPerPerson: 2, lifeMs: 60_000 },
    store: ownStore ?? {
      readFacts,
      takeSeat: async (request, decide) => {
        if (state.failing.seats) throw new Error('the database went away');
        const { facts, ...rest } = await readFacts(request);
        const answer = { ...rest, facts: { ...facts, seats: state.seatsTaken } };
        return { answer, verdict: decide(answer) };
      },
    },
    freshness: {
      isCurrent: (_roomId, userId) => state.freshness.isCurrent && !state.freshness.outdatedPeople.includes(userId),
      reaches: async () => state.freshness.reaches,
    },
    readPresentPeople: async (roomId, { identity, limit }) => {
      if (state.failing.store) throw new Error('the database is away');
      const people = state.present.get(roomId) ?? [];
      return (identity === null ? people : people.filter((each) => each.identity === identity).slice(-1)).slice(
        0,
        limit,
      );
    },
    makeRoom: async (roomId, agents) => {
      if (state.failing.livekit) throw new Error('LiveKit is away');
      state.made.push(roomId);
      state.agents.names = agents.map(({ agent_name }) => agent_name);
    },
    makeRoomAtDoor: async (roomId) => {
      if (state.failing.livekit) throw new Error('LiveKit is away');
      state.made.push(roomId);
    },
    livekitKeys: settings.livekit.keys,
    signToken: createTokenSigner(livekitKey, settings.tokenTtlSeconds),
    serverUrl: settings.livekit.publicUrl,
    append: async (records) => {
      if (state.failing.log) throw new LogUnavailableError('the log is away');
      if (records.some(({ value }) => (value?.length ?? 0) > maxRecordBytes))
        throw new RecordTooLargeError('too large');
      state.appended.push(...records);
      return records.map(({ topic }, index) => ({ topic, partition: 3, offset: BigInt(index) }));
    },
    keepRecords: async (records) => {
      if (state.failing.store) throw new Error('the database is away');
      state.kept.push(...records);
    },
    findLiveLogins: async ({ userId, loginId }, joinedBy) => {
      if (state.failing.store) throw new Error('the database is away');
      return state.liveLogins
        .filter(({ joinedAtMs = 0 }) => joinedAtMs <= (joinedBy?.getTime() ?? Number.POSITIVE_INFINITY))
        .filter((login) => (userId ?? login.userId) === login.userId && (loginId ?? login.loginId) === login.loginId);
    },
    metrics,
    logger,
    now: Date.now,
  });
  await app.ready();
  return {
    app,
    key,
    keyServer,
    lines,
    metrics,
    ...state,
    token: (claims, header) => signToken(key, claims, header),
    close: async () => {
      await app.close();
      await keyServer.close();
    },
  };
};

/** As if the process had been paused for as long as no answer of LiveKit takes, while a room is made. */
export const standStill = ({ made }: TestApi, by: { now(): number } = performance): Disposable => {
  const clock = vi.spyOn(by, 'now');
  const making = vi.spyOn(made, 'push').mockImplementation(() => {
    clock.mockReturnValue(by.now() + 5_001);
    return 0;
  });
  return {
    [Symbol.dispose]: () => {
      clock.mockRestore();
      making.mockRestore();
    },
  };
};
