import { hash } from 'node:crypto';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { type ParticipantsView, type ProblemCode, problemStatus, type RoomView } from '@realtime-service/contracts';
import type { RoomFacts } from '@realtime-service/room-model';
import type { FastifyInstance, FastifyReply, onRequestHookHandler } from 'fastify';
import type { Caller } from '../authenticate.ts';
import { ProblemError, refuseOtherMethods } from '../problem.ts';
import { readRequest } from '../read-request.ts';
import { decideView, readPeople, toParticipantsView, toRoomView } from './room-view.ts';
import { RoomRequest, type RoomsDependencies, roomUrl } from './rooms-route.ts';

export interface WatchSettings {
  /** How often a watched room is looked at, and each watcher's right to see it. */
  readonly lookEveryMs: number;
  /** Streams of this process at once. */
  readonly maxStreams: number;
  /** Of them, so that no one person takes them all. */
  readonly maxStreamsPerPerson: number;
  /** A stream ends by then, or with its caller's token, so that the caller comes with a token of today. */
  readonly lifeMs: number;
}

const url = `${roomUrl}/events`;
const operation = 'watch_room';
/** A connection on which nothing is sent for 10 s is closed. */
const keepAliveEveryMs = 4_000;
/** A stream that is over and has not been read to its end by then is cut off. */
const lingerMs = 1_000;

/** The people in a room as JSON, the same bytes for all who watch it: with a thousand inside it is some 200 KB. */
interface PeopleText {
  readonly json: Buffer;
  readonly digest: string;
}

/** What one watcher sees; what is the watcher's own of it is small. */
interface Sight {
  readonly id: string;
  readonly room: string;
  readonly people: Buffer;
}

const digestOf = (data: string | Buffer): string => hash('sha256', data, 'base64url').slice(0, 22);

const toPeopleText = (view: ParticipantsView): PeopleText => {
  const json = Buffer.from(JSON.stringify(view));
  return { json, digest: digestOf(json) };
};

/**
 * One look at the people in a room serves all who watch it for as long as `lookEveryMs`. It is written once for each
 * version of the room, which says what their roles are; the store gives the same version as the same object.
 */
const createPeopleReader = ({ readPresentPeople }: RoomsDependencies, lookEveryMs: number) => {
  const looks = new Map<string, Promise<(room: RoomFacts) => PeopleText>>();

  const look = async (roomId: string) => {
    const people = await readPeople(readPresentPeople, roomId);
    const texts = new WeakMap<RoomFacts, PeopleText>();
    return (room: RoomFacts): PeopleText => {
      const text = texts.get(room) ?? toPeopleText(toParticipantsView(room, people));
      texts.set(room, text);
      return text;
    };
  };

  return async (room: RoomFacts): Promise<PeopleText> => {
    const { roomId } = room;
    let textOf = looks.get(roomId);
    if (textOf === undefined) {
      textOf = look(roomId);
      looks.set(roomId, textOf);
      setTimeout(() => looks.delete(roomId), lookEveryMs).unref();
    }
    return (await textOf)(room);
  };
};

const toSight = (view: RoomView, { json, digest }: PeopleText): Sight => {
  const room = JSON.stringify(view);
  return { id: digestOf(room + digest), room, people: json };
};

/** An event whose data is a `RoomSight`: the room, and what the people's JSON holds, whose bytes are not copied. */
const partsOf = ({ id, room, people }: Sight): readonly (string | Buffer)[] => [
  `id: ${id}\nevent: room\ndata: {"room":${room},`,
  people.subarray(1),
  '\n\n',
];

/** What is there to see, or why nothing. */
const tryLook = (look: () => Promise<Sight>): Promise<Sight | ProblemCode> =>
  look().catch((error: unknown) => {
    if (error instanceof ProblemError) return error.code;
    throw error;
  });

/** What is sent to whoever has seen `lastId`, until there is nothing to see any more or `signal` is given. */
async function* watch(look: () => Promise<Sight>, lastId: unknown, lookEveryMs: number, signal: AbortSignal) {
  let sentId = lastId;
  // Something is sent at once, so that the caller sees the stream open.
  let sentAtMs = Number.NEGATIVE_INFINITY;
  while (!signal.aborted) {
    const seen = await tryLook(look);
    if (signal.aborted) return;
    if (typeof seen === 'string' && problemStatus[seen] < 500) {
      yield `event: end\ndata: ${JSON.stringify({ code: seen })}\n\n`;
      return;
    }
    // What cannot be known now is no reason to end: the sight stays as it was.
    const isNew = typeof seen !== 'string' && seen.id !== sentId;
    if (isNew || performance.now() - sentAtMs > keepAliveEveryMs) {
      if (isNew) {
        yield* partsOf(seen);
        sentId = seen.id;
      } else yield ':\n\n';
      sentAtMs = performance.now();
    }
    await delay(lookEveryMs, undefined, { signal }).catch(() => {});
  }
}

/**
 * The whole sight of a room, whenever it differs from the one before, as server-sent events (WHATWG HTML, 9.2). The id
 * is that of the content: who comes again with the newest one is sent nothing, who missed something gets what is now.
 */
export const registerWatch = (
  app: FastifyInstance,
  callerOnly: onRequestHookHandler[],
  settings: WatchSettings,
  dependencies: RoomsDependencies,
): void => {
  const { metrics, now } = dependencies;
  const { lookEveryMs, maxStreams, maxStreamsPerPerson, lifeMs } = settings;
  const readPeopleOnce = createPeopleReader(dependencies, lookEveryMs);
  const streams = new Map<AbortController, Caller['userId']>();
  let isEnding = false;

  const lookAs = async (caller: Caller, roomId: string): Promise<Sight> => {
    const seen = await decideView(dependencies, caller, roomId);
    return toSight(toRoomView(seen), await readPeopleOnce(seen.room));
  };

  /** @throws {ProblemError} where there are too many already, and once the process ends: nothing would end it then */
  const assertMayOpen = (userId: string): void => {
    if (isEnding) throw new ProblemError('overloaded', { reason: 'ending' });
    if (streams.size >= maxStreams) throw new ProblemError('overloaded', { reason: 'streams' });
    const own = streams.values().filter((watching) => watching === userId);
    if ([...own].length >= maxStreamsPerPerson)
      throw new ProblemError('rate_limited', { reason: 'streams', retryAfterSeconds: lifeMs / 1000 });
  };

  /** A stream, until its life, its caller's token or its connection is over; aborted already where that is gone. */
  const open = ({ userId, endsAtMs }: Caller, { raw }: FastifyReply): AbortSignal => {
    const leaving = new AbortController();
    streams.set(leaving, userId);
    const life = setTimeout(() => leaving.abort(), Math.min(lifeMs, endsAtMs - now()));
    const leave = (): void => {
      clearTimeout(life);
      leaving.abort();
      streams.delete(leaving);
    };
    raw.once('close', leave);
    // Whoever does not read what was sent keeps the stream from its end.
    leaving.signal.addEventListener('abort', () => void setTimeout(() => raw.destroy(), lingerMs).unref());
    if (raw.destroyed) leave();
    return leaving.signal;
  };

  app.get(
    url,
    { onRequest: callerOnly, exposeHeadRoute: false, config: { operation } },
    async ({ params, user, headers }, reply) => {
      const { roomId } = readRequest(RoomRequest, { params }).params;
      const look = (): Promise<Sight> => lookAs(user, roomId);
      // A refusal now has a status. What was seen is not kept: a stream would hold it for as long as it lives.
      await look();
      assertMayOpen(user.userId);
      const ending = open(user, reply);
      // Gone during that look: nothing will tell of it any more.
      if (ending.aborted) return reply.hijack();
      metrics.requests.inc({ operation, outcome: 'allowed', reason: 'member' });
      // Its connection is of no more use: kept alive, it would hold up the end of the process.
      reply.headers({
        'content-type': 'text/event-stream; charset=utf-8',
        'x-accel-buffering': 'no',
        connection: 'close',
      });
      return reply.send(Readable.from(watch(look, headers['last-event-id'], lookEveryMs, ending)));
    },
  );
  refuseOtherMethods(app, url, ['GET']);
  app.addHook('preClose', async () => {
    isEnding = true;
    for (const stream of streams.keys()) stream.abort();
  });
};
