import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { problemStatus, type RoomSight } from '@realtime-service/contracts';
import type { PresentPerson } from '@realtime-service/room-store';
import type { FastifyInstance, onRequestHookHandler } from 'fastify';
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

interface Watcher {
  readonly caller: Caller;
  readonly roomId: string;
  /** Of the newest event that the caller has. */
  readonly lastId: unknown;
}

const url = `${roomUrl}/events`;
const operation = 'watch_room';
/** A connection on which nothing is sent for 10 s is closed. */
const keepAliveEveryMs = 4_000;

/** One look at the people in a room serves all who watch it for as long as `lookEveryMs`. */
const createPeopleReader = ({ readPresentPeople }: RoomsDependencies, lookEveryMs: number) => {
  const looks = new Map<string, Promise<readonly PresentPerson[]>>();
  return (roomId: string): Promise<readonly PresentPerson[]> => {
    const known = looks.get(roomId);
    if (known !== undefined) return known;
    const look = readPeople(readPresentPeople, roomId);
    looks.set(roomId, look);
    setTimeout(() => looks.delete(roomId), lookEveryMs).unref();
    return look;
  };
};

const idOf = (data: string): string => createHash('sha256').update(data).digest('base64url').slice(0, 22);

/**
 * The whole sight of a room, whenever it differs from the one before, as server-sent events (WHATWG HTML, 9.2). The id is
 * that of the content: who comes again with the newest one is sent nothing, who missed something gets what is now.
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

  const look = async ({ caller, roomId }: Watcher): Promise<string> => {
    const seen = await decideView(dependencies, caller, roomId);
    const people = toParticipantsView(seen.room, await readPeopleOnce(roomId));
    return JSON.stringify({ room: toRoomView(seen), ...people } satisfies RoomSight);
  };

  /** @throws {ProblemError} where there are too many already */
  const open = ({ userId }: Caller): AbortController => {
    if (streams.size >= maxStreams) throw new ProblemError('overloaded', { reason: 'streams' });
    const own = streams.values().filter((watching) => watching === userId);
    if ([...own].length >= maxStreamsPerPerson)
      throw new ProblemError('rate_limited', { reason: 'streams', retryAfterSeconds: lifeMs / 1000 });
    const leaving = new AbortController();
    streams.set(leaving, userId);
    return leaving;
  };

  /** `first` was looked at before the answer began: a refusal then has a status. */
  async function* watch(watcher: Watcher, first: string, signal: AbortSignal) {
    const endsAtMs = performance.now() + Math.min(lifeMs, watcher.caller.endsAtMs - now());
    let sentId = watcher.lastId;
    // Something is sent at once, so that the caller sees the stream open.
    let sentAtMs = Number.NEGATIVE_INFINITY;
    let data = first;
    while (!signal.aborted && performance.now() < endsAtMs) {
      const id = idOf(data);
      const isNew = id !== sentId;
      if (isNew || performance.now() - sentAtMs > keepAliveEveryMs) {
        yield isNew ? `id: ${id}\nevent: room\ndata: ${data}\n\n` : ':\n\n';
        sentId = id;
        sentAtMs = performance.now();
      }
      await delay(lookEveryMs, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        data = await look(watcher);
      } catch (error) {
        if (!(error instanceof ProblemError)) throw error;
        // What cannot be known now is no reason to end: the sight stays as it was.
        if (problemStatus[error.code] >= 500) continue;
        yield `event: end\ndata: ${JSON.stringify({ code: error.code })}\n\n`;
        return;
      }
    }
  }

  app.get(
    url,
    { onRequest: callerOnly, exposeHeadRoute: false, config: { operation } },
    async ({ params, user, headers }, reply) => {
      const { roomId } = readRequest(RoomRequest, { params }).params;
      const watcher = { caller: user, roomId, lastId: headers['last-event-id'] };
      const first = await look(watcher);
      const leaving = open(user);
      const leave = (): void => {
        leaving.abort();
        streams.delete(leaving);
      };
      reply.raw.once('close', leave);
      // Gone during that look: nothing will tell of it any more.
      if (reply.raw.destroyed) {
        leave();
        return reply.hijack();
      }
      metrics.requests.inc({ operation, outcome: 'allowed', reason: 'member' });
      // Its connection is of no more use: kept alive, it would hold up the end of the process.
      reply.headers({
        'content-type': 'text/event-stream; charset=utf-8',
        'x-accel-buffering': 'no',
        connection: 'close',
      });
      return reply.send(Readable.from(watch(watcher, first, leaving.signal)));
    },
  );
  refuseOtherMethods(app, url, ['GET']);
  app.addHook('preClose', async () => {
    for (const stream of streams.keys()) stream.abort();
  });
};
