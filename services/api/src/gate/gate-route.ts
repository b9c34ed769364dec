import { problemStatus } from '@realtime-service/contracts';
import type { LivekitKey } from '@realtime-service/livekit';
import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify';
import { assertCurrent } from '../freshness.ts';
import { assertFresh, decideEntry } from '../join/decide-join.ts';
import { type JoinDependencies, nameOf } from '../join/join-route.ts';
import type { MakeRoom } from '../join/make-room.ts';
import { ProblemError, refuseOtherMethods } from '../problem.ts';
import { createVerifiedCache } from '../verified-cache.ts';
import { type GateAddress, readShownToken, signallingPaths } from './shown-token.ts';
import { createLivekitVerifier, leewayMs } from './verify-livekit-token.ts';
import { readVisitor, type Visitor } from './visitor.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Who stands at LiveKit's door: set where a proxy asks. */
    visitor: Visitor | null;
  }
}

type SharedWithJoin = 'store' | 'freshness' | 'signToken' | 'metrics' | 'logger' | 'now';

export interface GateDependencies extends Pick<JoinDependencies, SharedWithJoin> {
  /** Makes the room that is about to be entered. */
  readonly makeRoomAtDoor: MakeRoom;
  /** Each of them may have signed: LiveKit takes any for a refresh token. */
  readonly livekitKeys: readonly LivekitKey[];
}

export interface GateSettings extends GateAddress {
  /** Kinds of participants that pass with a token which others signed. */
  readonly machineKinds: readonly string[];
}

export const gateOperation = 'gate';
const url = '/api/realtime/gate';
/** Hooks that count one visitor's questions, whichever proxy asks them. */
export type LimitBy = (keyOf: (request: FastifyRequest) => string) => onRequestHookHandler;

/**
 * The life of an entry: what a client showed → visitor → facts → verdict → room → today's token, for the proxy to send
 * on.
 */
export const registerGate = (
  app: FastifyInstance,
  settings: GateSettings,
  limitBy: LimitBy,
  dependencies: GateDependencies,
): void => {
  const { freshness, signToken, metrics, logger, livekitKeys, now } = dependencies;
  const verify = createLivekitVerifier(livekitKeys);
  const known = createVerifiedCache<Visitor>();

  const visitorBy = (token: string): Visitor => {
    const claims = verify(token);
    const visitor = readVisitor(token, claims, settings.machineKinds);
    known.set(token, visitor, claims.exp * 1000 + leewayMs, now());
    return visitor;
  };

  const identify: onRequestHookHandler = (request, reply, done) => {
    allowReading(reply);
    const token = readShownToken(request.headers, settings);
    request.visitor = known.get(token, now()) ?? visitorBy(token);
    done();
  };

  const pass = (reply: FastifyReply, token: string, as: string): FastifyReply => {
    metrics.requests.inc({ operation: gateOperation, outcome: 'allowed', reason: as });
    return reply.header('authorization', `Bearer ${token}`).send();
  };

  const answer = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { roomId, person, claims, token: shown } = request.visitor as Visitor;
    if (person === null) return pass(reply, shown, claims.kind);
    assertCurrent(freshness, roomId, person.userId);
    const entrant = { ...person, roomId, takeOver: false };
    const admission = await decideEntry(dependencies.store, entrant).catch(refuseEntry);
    await ensureRoom(dependencies, roomId);
    assertFresh(admission);
    const { identity, verdict } = admission;
    const { metadata, attributes } = claims;
    const { permissions, role } = verdict;
    const name = nameOf(claims.name, admission);
    const { token } = signToken({ room: roomId, identity, name, metadata, attributes, permissions }, now());
    logger.info({ room: roomId, user: person.userId, role }, 'entry allowed');
    return pass(reply, token, role);
  };

  app.decorateRequest('visitor', null);
  const options = {
    onRequest: [identify, limitBy(visitorKey)],
    exposeHeadRoute: false,
    config: { operation: gateOperation },
  };
  // Envoy appends the path that its client asked for, and takes nothing but 200 for a yes. Not any path, since proxies
  // that keep the gate from clients read dots in it, which the router does not.
  const envoyUrls = signallingPaths.map((path) => url + settings.pathPrefix + path);
  app.get(url, options, (request, reply) => answer(request, reply.code(204)));
  for (const path of envoyUrls) app.get(path, options, (request, reply) => answer(request, reply.code(200)));
  for (const path of [url, ...envoyUrls]) refuseOtherMethods(app, path, ['GET']);
};

const visitorKey = ({ visitor }: FastifyRequest): string => visitor?.person?.userId ?? visitor?.claims.sub ?? '';

/** A browser that cannot read a refusal takes it for a broken network, and tries again for 40 s. */
export const allowReading = (reply: FastifyReply): void => {
  reply.header('access-control-allow-origin', '*');
};

/** The door says yes, no or not now; what exactly keeps somebody out, the desk tells. */
const refuseEntry = (error: unknown): never => {
  if (error instanceof ProblemError && problemStatus[error.code] < 500)
    throw new ProblemError('forbidden', { reason: error.reason });
  throw error;
};

/** After a crash LiveKit has no rooms, and a client that is told so leaves for good: no entry without the room. */
const ensureRoom = async ({ makeRoomAtDoor, metrics }: GateDependencies, roomId: string): Promise<void> => {
  try {
    await makeRoomAtDoor(roomId, []);
  } catch (cause) {
    metrics.roomsNotMade.inc();
    throw new ProblemError('livekit_unavailable', { cause });
  }
};
